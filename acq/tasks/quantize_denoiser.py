"""Task quantize_denoiser: a network from images to images, without its data.

    network -> generator, in workdir/generator -> student on its samples -> judgement,
    export, ONNX file, report

Both trainings are `common.loop.fit` with checkpoints of their own, so a run can go on
from the middle of either. With other ranges than the generator's nothing learns: the
network is only rounded.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from acq.denoisers.bits import Convolution, NetworkBits, convolutions_of
from acq.denoisers.bounds import LAST_BOUND
from acq.denoisers.observation import statistics_distance
from acq.denoisers.phases import (
    create_image_generator,
    generated_images,
    generator_phase,
    student_phase,
)
from acq.denoisers.ranges import noise_images, ranges_of_images
from acq.denoisers.rounding import apply_rounded, settled
from acq.quantization.phases import Phase, shared_batch_size
from acq.tasks.denoiser_files import network_bits, open_network
from acq.tasks.denoiser_outputs import (
    description,
    format_judged,
    write_export,
    write_report,
)
from acq.tasks.denoiser_settings import (
    FREE_TO_CHANGE,
    GENERATED,
    DenoiserTaskSettings,
    denoiser_settings,
)
from common.checkpoint import Checkpoints
from common.config import ConfigDict, as_json
from common.devices import is_first_process, to_host
from common.errors import UserError
from common.image_network import Apply, ImageNetwork
from common.loop import fit
from common.results import write_results
from common.run import Run
from common.typing import PyTree
from common.writers import MetricsWriter

# Generated images on the report.
_SHOWN = 12
# Statistics loss of generated images above which the run warns: several times that of a
# generator that learned, and half that of one that did not.
_UNLIKE = 0.5


class _Rounded(NamedTuple):
    """The network to quantize, and its grids.

    Attributes:
      network: the float one.
      convolutions: in the order of their computation.
      bits: of each.
    """

    network: ImageNetwork
    convolutions: tuple[Convolution, ...]
    bits: NetworkBits

    def variables(self, trained: PyTree) -> PyTree:
        """Returns those of the integer network.

        Args:
          trained: `ranges`, and `params` if a student learned.
        """
        return settled(
            {**self.network.variables, **trained}, self.bits, self.convolutions
        )

    def applied(self, trained: PyTree) -> Apply:
        """Returns the integer network; argument as `variables`."""
        apply = _apply(self.network.module, self.bits)
        return functools.partial(apply, self.variables(trained))


def quantize_denoiser(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Quantizes, judges and exports; goes on with a run that was interrupted.

    Args:
      config: the config of a recipe; checked here.
      workdir: the run's folder.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: the config or the network is wrong.
      RunFailed: a loss was not finite.
      Interrupted: a signal came; the checkpoint is written.
    """
    settings = denoiser_settings(config)
    run = Run(config=as_json(config), workdir=workdir, free=FREE_TO_CHANGE)
    with run.hold("quantize_denoiser", lambda results: "judged" in results) as finished:
        return finished if finished is not None else _quantize(run, settings)


def _quantize(run: Run, settings: DenoiserTaskSettings) -> dict[str, Any]:
    """Quantizes in a folder that is held; returns the results."""
    started = time.monotonic()
    network = open_network(settings)
    _refuse(settings, network)
    convolutions = convolutions_of(network, settings.quantization.image_size)
    bits = network_bits(settings, tuple(found.name for found in convolutions))
    rounded = _Rounded(network, convolutions, bits)
    # All inputs are open: from here on the folder is this run's.
    run.begin()
    generator = None
    if settings.ranges == GENERATED:
        phase = generator_phase(settings.quantization, network, bits.names[-1])
        generator = to_host(_fit(phase, run.workdir / "generator").generator.params)
    trained: PyTree = {"ranges": _ranges(settings.ranges, settings, rounded, generator)}
    if generator is not None:
        phase = student_phase(
            settings.quantization, network, bits, generator, trained["ranges"]
        )
        trained = to_host(_fit(phase, run.workdir).student.params)
    functions = _functions(settings, rounded, trained, generator)
    results = {
        "network": network.name,
        "teacher": dict(network.identity),
        **description(settings, network),
        "seed": settings.quantization.seed,
        "judged": network.judge(functions),
        "warnings": [
            *network.warnings,
            *_complaints(settings, network, bits.names[-1], generator),
        ],
        "seconds": round(time.monotonic() - started, 1),
    }
    if is_first_process():
        variables = rounded.variables(trained)
        write_export(settings, network, bits, variables, run.workdir / "export")
        logging.info("\n%s", format_judged(results))
        write_report(
            results,
            network.views({name: functions[name] for name in ("float", "quantized")}),
            _shown_images(settings, network, generator),
            run.workdir,
        )
        write_results(run.workdir, results)
    return results


def _refuse(settings: DenoiserTaskSettings, network: ImageNetwork) -> None:
    """Raises UserError if ranges, images or batches do not fit network and devices."""
    known = {"noise", *network.kinds}
    if network.has_statistics:
        known |= {GENERATED, "statistics"}
    if settings.ranges not in known:
        why = (
            "it has no batch normalisation"
            if settings.ranges in (GENERATED, "statistics")
            else "the images to judge on (config.judge.embedded) have none"
        )
        raise UserError(
            f"config.quantizer.ranges: got {settings.ranges!r} with {network.name}, "
            f"but {why}; accepted: {', '.join(sorted(known))}"
        )
    if settings.ranges == GENERATED:
        create_image_generator(settings.quantization, network)
        shared_batch_size(settings.quantization.batch_size)


def _fit(phase: Phase, folder: Path) -> PyTree:
    """Returns the state after a phase."""
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        return fit(
            phase.state,
            phase.p_step,
            phase.draws,
            phase.plan,
            checkpoints=checkpoints,
            make_writer=lambda after: MetricsWriter(folder, after_step=after),
            name=phase.name,
        )


def _ranges(
    source: str,
    settings: DenoiserTaskSettings,
    rounded: _Rounded,
    generator: PyTree | None,
) -> PyTree:
    """Returns the ranges that a source of images gives."""
    network, run = rounded.network, settings.quantization
    count, side, seed = settings.images, run.image_size, run.seed
    if source in ("noise", "statistics"):
        images = noise_images(network, count, side, seed)
    elif source == GENERATED:
        images = generated_images(run, network, generator, count)
    else:
        images = jnp.asarray(network.images(source, count, side, seed))
    return ranges_of_images(
        network,
        rounded.bits,
        [images],
        method=settings.range_method,
        gaussian_seed=seed if source == "statistics" else None,
        bound=LAST_BOUND if source == GENERATED else None,
    )


def _functions(
    settings: DenoiserTaskSettings,
    rounded: _Rounded,
    trained: PyTree,
    generator: PyTree | None,
) -> dict[str, Apply]:
    """Returns what is judged: float network, baselines, quantized network."""
    network = rounded.network
    functions: dict[str, Apply] = {
        "float": jax.jit(functools.partial(network.module.apply, network.variables))
    }
    for source in settings.baselines:
        has = {"noise", *network.kinds}
        has |= {"statistics"} if network.has_statistics else set()
        has |= set() if generator is None else {GENERATED}
        if source in has:
            ranges = _ranges(source, settings, rounded, generator)
            functions[source] = rounded.applied({"ranges": ranges})
    functions["quantized"] = rounded.applied(trained)
    return functions


def _complaints(
    settings: DenoiserTaskSettings,
    network: ImageNetwork,
    last: str,
    generator: PyTree | None,
) -> list[str]:
    """Returns what is wrong with the generator's images, and logs it."""
    if generator is None:
        return []
    images = generated_images(
        settings.quantization, network, generator, settings.images
    )
    distance = statistics_distance(network, images, last)
    if distance < _UNLIKE:
        return []
    complaint = (
        "Generated images are unlike those of the training: their BatchNorm statistics "
        f"are {distance:.2g} from the network's, 0.15 or less is usual. Give the "
        "generator more steps (config.generator.duration). For a network whose blocks "
        "multiply features, as NAFNet's do, give config.generator.first_bound=4."
    )
    logging.warning("%s", complaint)
    return [complaint]


def _shown_images(
    settings: DenoiserTaskSettings, network: ImageNetwork, generator: PyTree | None
) -> np.ndarray | None:
    """Returns (n, h, w) HU of some generated images; None without a generator."""
    if generator is None:
        return None
    images = generated_images(settings.quantization, network, generator, _SHOWN)
    return network.to_hu(np.asarray(images[..., network.channels // 2]))


@functools.cache
def _apply(module: Any, bits: NetworkBits) -> Callable[[PyTree, jax.Array], jax.Array]:
    return jax.jit(lambda variables, x: apply_rounded(module, variables, x, bits)[0])
