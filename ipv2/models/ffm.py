"""FFM: frequency-domain flow matching (IPv1, arXiv 2510.07492, section on FFM).

The authors of image purification published this flow model with it: a U-Net (MDMS, AAAI
2024) whose residual blocks end in a Mixer. It has 39,512,099 parameters with three
channels, as published, and 39,509,793 with one.
"""

from ipv2.models.flow_unet import NORM_GROUPS, FlowUNet
from ipv2.models.mixer import Mixer


class FFM(FlowUNet):
    """Velocity field with a frequency branch; `FlowUNet` documents attributes and call.

    The published form is `FFM(channels=3, time_scale=1.0)`.
    """

    layer = Mixer
    # The Mixer normalises half of the channels, and halves the lowest level again.
    width_multiple = 2 * NORM_GROUPS
    size_multiple = 2
