"""Data-free quantization of networks from images to images, such as denoisers.

The network is any flax module. Its convolutions are met by interception, so that there
is no second copy of its code:

    rounding     kernels and inputs of convolutions on grids of few bits
    ranges       where the grids lie, from images or from BatchNorm parameters
    generator    images without labels, in the network's unit
    steps        of the generator, and of the student

The network itself comes as a `common.image_network.ImageNetwork`.
"""
