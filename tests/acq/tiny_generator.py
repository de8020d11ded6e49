"""A tiny generator and teacher, and a generator made to collapse."""

import jax
import jax.numpy as jnp
import optax

from acq.generator import Generator
from acq.layers import FloatLayers
from acq.train_step import GeneratorLoss, GeneratorParts, Sampling
from common.devices import AXIS
from tests.acq.own_networks import Small

CLASSES = 3
PARTS = GeneratorParts(
    generator=Generator(
        image_size=8, channels=2, classes=CLASSES, width=4, axis_name=AXIS
    ),
    teacher=Small(FloatLayers(AXIS), CLASSES),
    loss=GeneratorLoss(center_weight=1.0),
    sampling=Sampling(latent=5, classes=CLASSES, reach=0.6, paired=False, seed=7),
    optimizer=optax.adam(1e-3),
)


@jax.jit
def create_variables():
    """Parameters of the generator, variables of the teacher."""
    conditions = PARTS.sampling.draw(jnp.arange(4, dtype=jnp.uint32))
    images = jnp.zeros((4, 8, 8, 2))
    generator = PARTS.generator.clone(axis_name=None)
    return (
        generator.init(jax.random.key(0), conditions)["params"],
        PARTS.teacher.clone(layers=FloatLayers()).init(jax.random.key(1), images),
    )


def with_zeros(params, *layers):
    """Parameters with all of some layers' zero."""
    return {
        name: jax.tree.map(jnp.zeros_like, tree) if name in layers else tree
        for name, tree in params.items()
    }
