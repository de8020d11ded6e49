"""Photon counts of slices: Poisson and binomial numbers from normal ones.

Every slice has its own key; its draws depend on nothing else.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

# Below this variance of a count, summed probabilities give the quantile.
_EXACT_BELOW = 10.0
# P(Poisson(10 / (1 - 1/2)) > 56) = 4e-11.
_EXACT_STEPS = 56


def _summed_quantile(
    normal: Float32[Array, "*s"], mean: Float32[Array, "*s"], fraction: Any
) -> Float32[Array, "*s"]:
    """Returns the smallest count whose cumulative probability reaches Phi(normal)."""
    # P(k + 1) = P(k) (M - k) / (k + 1) f / (1 - f), M f = mean: also finite at f = 0.
    safe = jnp.where(fraction > 0, fraction, 1.0)
    rate = jnp.where(fraction > 0, jnp.log1p(-fraction) / safe, -1.0)
    uniform = jax.scipy.stats.norm.cdf(normal)
    probability = jnp.exp(mean * rate)
    cumulative = probability
    count = jnp.zeros_like(mean)
    for k in range(_EXACT_STEPS):
        count = count + (uniform > cumulative)
        left = jnp.maximum(mean - k * fraction, 0.0)
        probability = probability * left / ((k + 1) * (1 - fraction))
        cumulative = cumulative + probability
    return count


def sample_counts(
    normal: Float32[Array, "*s"],
    mean: Float32[Array, "*s"],
    fraction: Any = 0.0,
) -> Float32[Array, "*s"]:
    """Returns binomial counts, by inverting the distribution function.

    The distribution is Binomial(mean / fraction, fraction) with variance
    mean (1 - fraction); fraction 0 is Poisson(mean). The inverted uniform number is
    Phi(normal). At a variance of 10 and more the inverse is the Cornish-Fisher
    expansion to the order of 1 / sd with Sheppard's correction, rounded to an integer
    (for Poisson: Giles, ACM TOMS 42(1), 2016, equation 9, without its last term). Below
    that, probabilities are summed.

    Args:
      normal: standard normal numbers, one per count.
      mean: expected counts, at least 0.
      fraction: a number in [0, 1/2].

    Returns:
      Integers, at least 0, as float32.
    """
    variance = mean * (1 - fraction)
    sd = jnp.sqrt(jnp.maximum(variance, _EXACT_BELOW))
    square = normal * normal
    skew = (1 - 2 * fraction) / 6
    kurtosis = (1 - 6 * fraction * (1 - fraction)) / 24
    first = skew * (square - 1)
    second = (
        kurtosis * (square - 3) - skew * skew * (2 * square - 5) - 1 / 24
    ) * normal
    many = jnp.floor(mean + sd * normal + first + second / sd + 0.5)

    is_few = variance < _EXACT_BELOW
    few = jax.lax.cond(
        jnp.any(is_few),
        _summed_quantile,
        lambda *_: jnp.zeros_like(mean),
        normal,
        jnp.where(is_few, mean, 0.0),
        jnp.asarray(fraction, jnp.float32),
    )
    return jnp.where(is_few, few, jnp.maximum(many, 0.0))


def thinned_counts(
    normal: Float32[Array, "*s"], mean: Float32[Array, "*s"], fraction: Any
) -> Float32[Array, "*s"]:
    """Returns counts of Binomial(mean / fraction, fraction); Poisson(mean) for 0.

    Above a fraction of 1/2, the lost counts are drawn and subtracted from the total.
    """
    total = mean / jnp.where(fraction > 0, fraction, 1.0)
    common = fraction > 0.5
    rare = jnp.where(common, 1 - fraction, fraction)
    drawn = sample_counts(normal, jnp.where(common, total * rare, mean), rare)
    drawn = jnp.where(fraction > 0, jnp.minimum(drawn, total), drawn)
    return jnp.where(common, total - drawn, drawn)


def slice_keys(rng: Array, batch: tuple[int, ...]) -> Array:
    """Returns one key per slice, flat: the given keys, or one folded with indices."""
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        rng = jax.random.wrap_key_data(rng)
    if rng.shape == batch and batch:
        return rng.reshape(-1)
    if rng.shape != ():
        raise ValueError(
            f"rng: got keys of shape {rng.shape}, accepted: one key, or one for each "
            f"image of the batch {batch}."
        )
    index = jnp.arange(math.prod(batch))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, index)
