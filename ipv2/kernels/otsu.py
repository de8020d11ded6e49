"""Otsu's threshold of 8-bit images, in exact integer arithmetic.

``t = argmax_t n0 n1 (m0 - m1)^2``, the between-class variance, where class 0 holds the
pixels ``x <= t``, with counts ``n`` and means ``m`` (Otsu, IEEE TSMC 9(1), 1979). With
the cumulative count ``n`` and sum ``s``, and totals ``N`` and ``S``, this equals
``(N s - n S)^2 / (n (N - n))`` up to the constant N^2.

Float32 cannot rank thresholds near the flat maximum, and accelerators have no fast
float64. So fractions are compared by cross-multiplication in 16-bit limbs. In a tie the
lowest threshold wins. OpenCV computes in float64; its rounding may select another
threshold within a run of empty bins, which gives the same binary image.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int32, UInt8

LEVELS = 256
# The bound that keeps n (N - n), N s and n S within the limbs set aside below.
MAX_PIXELS = 2**24

_LIMB = 16
_MASK = 0xFFFF


def histogram(image: UInt8[Array, "*b h w"]) -> Int32[Array, "*b 256"]:
    """Returns the number of pixels at each of the 256 levels.

    The scatter-add dominates the time (9 ns per update on XLA:CPU). So two pixels share
    one update of a joint 256 x 256 histogram, whose margins are then added. Images are
    scattered separately, so the runtime can use all cores.
    """
    *batch, height, width = image.shape
    flat = image.reshape(-1, height * width)
    counts = [_histogram_1d(flat[i]) for i in range(flat.shape[0])]
    return jnp.stack(counts).reshape(*batch, LEVELS)


def otsu_threshold(image: UInt8[Array, "*b h w"]) -> Int32[Array, "*b"]:
    """Returns Otsu's threshold `t`; pixels ``x <= t`` are the dark class.

    It is 0 for an image of a single level, as in OpenCV.

    Raises:
        ValueError: An image is empty or has more than 2^24 pixels.
    """
    height, width = image.shape[-2:]
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(
            f"Otsu's threshold needs 1 to {MAX_PIXELS} pixels per image, got "
            f"{height} x {width}"
        )
    return otsu_from_histogram(histogram(image))


def otsu_from_histogram(counts: Int32[Array, "*b 256"]) -> Int32[Array, "*b"]:
    """Returns Otsu's threshold from counts of the 256 levels (at most 2^24 pixels)."""
    counts = counts.astype(jnp.uint32)
    level = jnp.arange(LEVELS, dtype=jnp.uint32).reshape(
        (1,) * (counts.ndim - 1) + (LEVELS,)
    )
    n = jnp.cumsum(counts, axis=-1, dtype=jnp.uint32)
    s = jnp.cumsum(counts * level, axis=-1, dtype=jnp.uint32)
    total_n = jnp.broadcast_to(n[..., -1:], n.shape)
    total_s = jnp.broadcast_to(s[..., -1:], s.shape)

    # Little-endian limbs: n < 2^25 and s < 2^32 take 2, their product 4, its square 8.
    difference = _difference(
        _multiply(_limbs(total_n), _limbs(s)), _multiply(_limbs(n), _limbs(total_s))
    )
    numerator = _multiply(difference, difference)
    denominator = _multiply(_limbs(n), _limbs(total_n - n))
    # An empty class has variance 0 = 0 / 1.
    one = _limbs(jnp.ones_like(n))
    one = jnp.concatenate([one, jnp.zeros_like(one)])
    denominator = jnp.where(((n == 0) | (n == total_n))[None], one, denominator)
    index = jnp.broadcast_to(level.astype(jnp.int32), n.shape)

    # Before round k, entry i holds the best of the thresholds i ... i + 2^k - 1; in a
    # tie it keeps the lower one. Entry 0 ends with the best of all; entries that wrap
    # around the end never reach it.
    def compete(
        k: jax.Array, best: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        rival = jax.tree.map(lambda x: jnp.roll(x, -(2**k), axis=-1), best)
        better = _less(_multiply(best[0], rival[1]), _multiply(rival[0], best[1]))
        return (
            jnp.where(better[None], rival[0], best[0]),
            jnp.where(better[None], rival[1], best[1]),
            jnp.where(better, rival[2], best[2]),
        )

    rounds = LEVELS.bit_length() - 1
    best = lax.fori_loop(0, rounds, compete, (numerator, denominator, index))
    return best[2][..., 0]


def _histogram_1d(pixels: jax.Array) -> jax.Array:
    if pixels.shape[0] % 2:
        last = jnp.zeros((LEVELS,), jnp.int32).at[pixels[-1]].add(1)
        return _histogram_1d(pixels[:-1]) + last
    half = pixels.shape[0] // 2
    pair = pixels[:half].astype(jnp.int32) * LEVELS + pixels[half:].astype(jnp.int32)
    joint = jnp.zeros((LEVELS * LEVELS,), jnp.int32)
    joint = joint.at[pair].add(1, mode="promise_in_bounds").reshape(LEVELS, LEVELS)
    return joint.sum(0) + joint.sum(1)


def _limbs(value: jax.Array) -> jax.Array:
    """Returns two 16-bit limbs of each uint32, low first, along a new leading axis."""
    return jnp.stack([value & _MASK, value >> _LIMB])


def _multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the product of two limb numbers, ``len(a) + len(b)`` limbs."""
    size, extra = len(a), len(b)
    edges = [(0, 0)] * (a.ndim - 1)
    columns = jnp.zeros((size + extra, *a.shape[1:]), jnp.uint32)
    for j in range(extra):
        product = a * b[j][None]
        # At most 2 x 8 halves of 16 bits meet in a column: no overflow.
        columns += jnp.pad(product & _MASK, [(j, extra - j), *edges])
        columns += jnp.pad(product >> _LIMB, [(j + 1, extra - j - 1), *edges])

    def carry_over(carry: jax.Array, column: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = column + carry
        return total >> _LIMB, total & _MASK

    return lax.scan(carry_over, jnp.zeros_like(columns[0]), columns)[1]


def _difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the absolute difference of two limb numbers of the same length."""
    swap = _less(a, b)[None]

    def borrow_over(
        borrow: jax.Array, digits: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        large, small = digits
        digit = large + jnp.uint32(1 << _LIMB) - small - borrow
        return jnp.uint32(1) - (digit >> _LIMB), digit & _MASK

    pair = (jnp.where(swap, b, a), jnp.where(swap, a, b))
    return lax.scan(borrow_over, jnp.zeros_like(a[0]), pair)[1]


def _less(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns whether ``a < b``; the highest limb that differs decides."""

    def compare(
        less: jax.Array, limbs: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        x, y = limbs
        return (x < y) | ((x == y) & less), None

    return lax.scan(compare, jnp.zeros(a.shape[1:], bool), (a, b))[0]
