"""FM: flow matching on a plain U-Net, the generative baseline of FFM.

FFM's network with a 3x3 convolution instead of every Mixer: 38,649,281 parameters with
one channel.
"""

import functools

from ipv2.models.blocks import Conv
from ipv2.models.flow_unet import FlowUNet, kernel_init


class FM(FlowUNet):
    """Velocity field of convolutions; `FlowUNet` documents attributes and call."""

    layer = functools.partial(Conv, kernel_size=3, kernel_init=kernel_init)
