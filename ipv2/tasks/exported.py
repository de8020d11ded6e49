"""The exported network of a run, applied as a config says."""

from pathlib import Path

from absl import logging

from common.config import ConfigDict
from ipv2.inference.trained import Trained, load_trained
from ipv2.tasks import settings


def load_exported(config: ConfigDict, export: Path) -> Trained:
    """The network in an export; a flow is followed as `config.flow` says.

    The config always has the last word on sampler, steps and dropout, as it cannot
    tell a value that was given from a default; where the export says otherwise, a line
    in the log tells. `time_scale` is the network's own: the export's.

    Args:
      config: a checked IPv2 config; its network gives way to the exported one.
      export: its folder.

    Raises:
      UserError: as `load_trained`.
    """
    trained = load_trained(export)
    own, asked = trained.spec.sampling, settings.sampling(config)
    if own is not None and own != asked and "flow" in trained.manifest:
        logging.info(
            "config.flow: %s in %d steps, dropout %s; the export was made for %s in %d "
            "steps, dropout %s",
            *(asked.sampler, asked.steps, asked.dropout_in_evaluation),
            *(own.sampler, own.steps, own.dropout_in_evaluation),
        )
    return trained.sampled(asked)
