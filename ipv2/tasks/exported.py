"""Loads the exported network of a run, to be applied as a config says."""

from pathlib import Path

from absl import logging

from common.config import ConfigDict
from ipv2.inference.trained import Trained, load_trained
from ipv2.tasks import settings


def load_exported(config: ConfigDict, export: Path) -> Trained:
    """Returns the network in an export; a flow is followed as `config.flow` says.

    The config always decides sampler, steps and dropout, since a given value looks like
    a default there. A line in the log says so if the export has other values.
    `time_scale` belongs to the network: the export's counts.

    Args:
      config: a checked IPv2 config; its network does not count.
      export: the folder of the export.

    Raises:
      UserError: as `load_trained`.
    """
    trained = load_trained(export)
    exported, given = trained.spec.sampling, settings.sampling(config)
    is_stated = "flow" in trained.manifest
    if is_stated and exported is not None and exported != given:
        logging.info(
            "config.flow: %s in %d steps, dropout %s; the export was made for %s in %d "
            "steps, dropout %s",
            *(given.sampler, given.steps, given.dropout_in_evaluation),
            *(exported.sampler, exported.steps, exported.dropout_in_evaluation),
        )
    return trained.sampled(given)
