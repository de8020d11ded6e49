"""Small networks, exported as a training run does it, whose weights do something."""

import jax
import jax.numpy as jnp
import numpy as np

from common.checkpoint import export_variables
from configs import ipv2_redcnn
from ipv2.tasks import settings
from ipv2.training.denoiser import make_denoise

SMALL = {"name": "cnn10"}


def config_of(source, output, **changes):
    """The recipe's config for task denoise."""
    config = ipv2_redcnn.get_config()
    config.denoise.input, config.denoise.output = str(source), str(output)
    config.denoise.batch_size = 2
    config.update_from_flattened_dict(changes)
    return config


def export_network(workdir, *, seed=0, strength=1.0, **model):
    """Exports a network; returns `hu b h w c -> b h w`, and its variables.

    Fresh networks nearly return their input: weights are drawn anew, so that they
    change it by some tens of HU.
    """
    config = ipv2_redcnn.get_config()
    with config.unlocked():
        config.model.update(model or SMALL)
    denoiser = settings.denoiser(config)
    variables = denoiser.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)
    drawn = [
        leaf + strength * rng.normal(0, 0.1 / np.sqrt(leaf.size), leaf.shape)
        for leaf in leaves
    ]
    drawn = [np.asarray(a, np.float32) for a in drawn]
    variables = jax.tree.unflatten(tree, drawn)
    manifest = {
        "method": "ipv2",
        **settings.denoiser_spec(config).to_json(),
        "unit": "HU/1000",
        "step": 7,
        "trained_with": {"purify": config.purify.to_dict()},
    }
    export_variables(workdir / "export", variables, manifest)
    apply = jax.jit(make_denoise(denoiser))
    return lambda hu: np.asarray(apply(variables, jnp.asarray(hu))), variables
