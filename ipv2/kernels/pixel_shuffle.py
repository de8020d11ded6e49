"""Pixel shuffle: channels become pixels, and back.

    pixel_shuffle:   y[n, r*f + i, c*f + j, k] = x[n, r, c, (k*f + i)*f + j]
    pixel_unshuffle: the inverse

The channel order is that of PyTorch's PixelShuffle and PixelUnshuffle, so weights of
neighbouring layers can be copied. Both are permutations: the gradient of one is the
other. Static: the factor f.
"""

from jaxtyping import Array, Shaped


def pixel_shuffle(
    x: Shaped[Array, "n h w c"], factor: int
) -> Shaped[Array, "n h2 w2 c2"]:
    """Rearranges (n, h, w, c) to (n, h * factor, w * factor, c / factor^2).

    Raises:
      ValueError: The channels are no multiple of factor^2, or factor is below 1.
    """
    n, h, w, c = x.shape
    if factor < 1 or c % factor**2:
        raise ValueError(f"{c} channels do not divide into {factor}x{factor} pixels")
    x = x.reshape(n, h, w, c // factor**2, factor, factor)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, h * factor, w * factor, c // factor**2)


def pixel_unshuffle(
    x: Shaped[Array, "n h w c"], factor: int
) -> Shaped[Array, "n h2 w2 c2"]:
    """Rearranges (n, h, w, c) to (n, h / factor, w / factor, c * factor^2).

    Raises:
      ValueError: A side is no multiple of factor, or factor is below 1.
    """
    n, h, w, c = x.shape
    if factor < 1 or h % factor or w % factor:
        raise ValueError(
            f"an image of {h}x{w} does not divide into {factor}x{factor} pixels"
        )
    x = x.reshape(n, h // factor, factor, w // factor, factor, c)
    x = x.transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(n, h // factor, w // factor, c * factor**2)
