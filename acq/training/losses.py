"""Loss terms of generator and student, each a mean over the given examples.

`train_step.py` adds the terms with their weights. Means here are over one device's
share of the batch. The step averages them over devices, which gives the value of the
joined batch. A term that is not a mean over examples takes the devices' axis as an
argument. `statistics_loss` and `hint_loss` take trees with one leaf per layer.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

StatisticsForm = Literal["squared", "relative"]
# Added to distances and norms before a division.
_SMALL = 1e-8


def class_loss(logits: Float[Array, "n k"], label: Int[Array, "n"]) -> Float[Array, ""]:
    """Cross-entropy of the softmax with the labels, in nats."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)
    return -jnp.mean(chosen)


def statistics_loss(found, running, form: StatisticsForm) -> Float[Array, ""]:
    """BNS: distance of the samples' BatchNorm statistics from the training images'.

    It is a mean over the BatchNorm layers of the sum of two means over channels:

        squared:  (m - mean)^2           + (v - var)^2              (GDFQ's)
        relative: (m - mean)^2 / var     + (v / var - 1)^2

    `relative` gives every channel the same weight at any scale. In `squared` the layers
    with the largest activations dominate the sum.

    Args:
      found: {...: {mean, var}} of the samples at each layer's input, var biased.
      running: the teacher's running statistics, the same tree.
      form: 'squared' or 'relative'.

    Raises:
      ValueError: the trees or their shapes differ, or there is no BatchNorm layer.
    """
    found, running = layer_statistics(found), layer_statistics(running)
    if not running or found.keys() != running.keys():
        raise ValueError(
            "the samples' statistics are of the layers "
            f"{sorted(found)}, the teacher's of {sorted(running)}"
        )
    terms = []
    for name, (mean, var) in running.items():
        m, v = found[name]
        if m.shape != mean.shape or v.shape != var.shape:
            raise ValueError(f"{name}: statistics of {m.shape} and of {mean.shape}")
        if form == "squared":
            terms.append(jnp.mean((m - mean) ** 2) + jnp.mean((v - var) ** 2))
        else:
            # A channel that never varied has no scale.
            scale = jnp.maximum(var, 1e-5)
            of_means = jnp.mean((m - mean) ** 2 / scale)
            terms.append(of_means + jnp.mean(((v - var) / scale) ** 2))
    return jnp.mean(jnp.stack(terms))


def layer_statistics(tree) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Returns {path of a BatchNorm layer: (mean, var)} from a nested collection."""
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    names = [name.removesuffix("/mean") for name in leaves if name.endswith("/mean")]
    return {name: (leaves[f"{name}/mean"], leaves[f"{name}/var"]) for name in names}


def center_loss(
    achieved: Float[Array, "n 2"], requested: Float[Array, "n 2"]
) -> Float[Array, ""]:
    """Attention center matching: the mean squared distance; 8 for opposite corners."""
    return jnp.mean(jnp.sum(jnp.square(achieved - requested), axis=-1))


def pair_loss(
    latent: Float[Array, "n d"], images: Float[Array, "n h w c"]
) -> Float[Array, ""]:
    """Adversarial loss of pairs: makes samples of one condition differ as latents do.

        mean over pairs of |z1 - z2| / (|z1 - z2| + |x1 - x2|)

    with |.| the mean absolute difference. It is in (0, 1]. Equal samples give 1 with a
    gradient of 0. This is the ratio of Mao et al. (mode seeking, CVPR 2019) in a
    bounded form.

    Args:
      latent: latents; pair i is at 2 i and 2 i + 1.
      images: the samples, in the same order.

    Raises:
      ValueError: a sample has no partner.
    """
    if len(latent) % 2 or not len(latent):
        raise ValueError(f"pairs need an even number of samples, got {len(latent)}")
    z, x = (
        jnp.mean(jnp.abs(a[0::2] - a[1::2]).reshape(len(a) // 2, -1), axis=-1)
        for a in (latent, images)
    )
    return jnp.mean(z / (z + x + _SMALL))


def consistency_loss(
    eval_attention: Float[Array, "n h w"], train_attention: Float[Array, "n h w"]
) -> Float[Array, ""]:
    """1 - cosine of the attention maps in evaluation and training mode, in [0, 1]."""
    return 1 - jnp.mean(attention_cosine(eval_attention, train_attention))


def attention_cosine(
    a: Float[Array, "n h w"], b: Float[Array, "n h w"]
) -> Float[Array, "n"]:
    """Cosine of two attention maps of each sample; 1 for equal maps."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / (norms + _SMALL)


def entropy(logits: Float[Array, "n k"]) -> Float[Array, "n"]:
    """Entropy of the softmax in nats: 0 for one certain class, log k for none."""
    return jnp.sum(jax.scipy.special.entr(jax.nn.softmax(logits)), axis=-1)


def distillation_loss(
    student: Float[Array, "n k"], teacher: Float[Array, "n k"], temperature: float | int
) -> Float[Array, ""]:
    """T^2 KL(teacher || student) of the softened softmax, a mean over samples.

    Published code averages over the batch *and* the classes, so its values are these
    divided by the number of classes.
    """
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return temperature**2 * jnp.mean(divergence)


def hint_loss(student, teacher, *, axis_name: str | None = None) -> Float[Array, ""]:
    """Distance of the student's activations from the teacher's, layer by layer.

        mean over layers of mean((s - t)^2) / mean(t^2)

    Args:
      student: a tree of activations.
      teacher: the same tree; it gets no gradient.
      axis_name: pmapped axis over which mean(t^2) is computed; None for one device.

    Raises:
      ValueError: the trees or their shapes differ, or they are empty.
    """
    if not jax.tree.leaves(student):
        raise ValueError("the student has no activations")

    def distance(s: jax.Array, t: jax.Array) -> jax.Array:
        if s.shape != t.shape:
            raise ValueError(f"activations of {s.shape} and of {t.shape}")
        t = jax.lax.stop_gradient(t)
        power = jnp.mean(jnp.square(t))
        if axis_name is not None:
            power = jax.lax.pmean(power, axis_name)
        return jnp.mean(jnp.square(s - t)) / (power + _SMALL)

    distances = jax.tree.leaves(jax.tree.map(distance, student, teacher))
    return jnp.mean(jnp.stack(distances))
