"""A tiny generator and teacher, and a generator made to collapse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from acq.layers.float import FloatLayers, Layers
from acq.samples.generator import Generator
from acq.training.step_parts import GeneratorLoss, GeneratorParts, Sampling
from common.devices import AXIS

CLASSES = 3


class TwoNorms(nn.Module):
    """A network in which the second norm's input depends on the first norm's mode."""

    layers: Layers
    classes: int

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.conv(4, 3, strides=2, padding=1, name="conv1")(x)
        x = nn.relu(make.batch_norm(name="bn1")(x, train))
        x = make.conv(6, 1, padding=0, name="conv2")(x)
        x = nn.relu(make.batch_norm(name="bn2")(x, train))
        return make.dense(self.classes, name="fc")(jnp.mean(x, (1, 2))), x


PARTS = GeneratorParts(
    generator=Generator(
        image_size=8, channels=2, classes=CLASSES, width=4, axis_name=AXIS
    ),
    teacher=TwoNorms(FloatLayers(axis_name=AXIS), CLASSES),
    loss=GeneratorLoss(center_weight=1.0),
    sampling=Sampling(
        latent=5, classes=CLASSES, reach=0.6, paired=False, shift=2, seed=7
    ),
    black=(-1.0, -2.0),
    optimizer=optax.adam(1e-3),
)


@jax.jit
def create_variables():
    """Returns parameters of the generator and variables of the teacher."""
    conditions = PARTS.sampling.draw(jnp.arange(4, dtype=jnp.uint32))
    images = jnp.zeros((4, 8, 8, 2))
    generator = PARTS.generator.clone(axis_name=None)
    teacher = PARTS.teacher.clone(layers=FloatLayers())
    variables = teacher.init(jax.random.key(1), images)
    # No channel like the samples', or like another.
    shifted = jax.tree.map(
        lambda x: x + 0.1 * jnp.arange(1, len(x) + 1), variables["batch_stats"]
    )
    return (
        generator.init(jax.random.key(0), conditions)["params"],
        {**variables, "batch_stats": shifted},
    )


def with_zeros(params, *layers):
    """Returns parameters in which some layers are all zero."""
    return {
        name: jax.tree.map(jnp.zeros_like, tree) if name in layers else tree
        for name, tree in params.items()
    }
