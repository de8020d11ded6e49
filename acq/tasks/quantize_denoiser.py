"""Task quantize_denoiser: a network from images to images, without its data.

    network -> generator, in workdir/generator -> student on its samples -> judgement,
    export, ONNX file

Both trainings are `common.loop.fit` with checkpoints of their own, so a run can go on
from the middle of either. With other ranges than the generator's nothing learns: the
network is only rounded.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from acq.denoisers.bits import Convolution, NetworkBits, convolutions_of
from acq.denoisers.phases import (
    create_image_generator,
    generated_images,
    generator_phase,
    student_phase,
)
from acq.denoisers.ranges import noise_images, ranges_of_images
from acq.denoisers.rounding import apply_rounded, settled
from acq.quantization.phases import Phase, shared_batch_size
from acq.tasks.denoiser_files import network_bits, open_network, write_files
from acq.tasks.denoiser_settings import (
    FREE_TO_CHANGE,
    GENERATED,
    DenoiserTaskSettings,
    denoiser_settings,
)
from common.checkpoint import Checkpoints, export_variables
from common.config import ConfigDict, as_json
from common.devices import is_first_process, to_host
from common.errors import UserError
from common.image_network import Apply, ImageNetwork
from common.loop import fit
from common.onnx.package import INSTALL, has_onnx
from common.results import write_results
from common.run import Run
from common.text_table import format_table
from common.typing import PyTree
from common.writers import MetricsWriter

# Where ranges come from, in words.
_WORDS = {
    GENERATED: "images of the generator, without data",
    "noise": "uniform noise over the range of the unit",
    "statistics": "draws of BatchNorm's outputs from its parameters, without data",
}
_COLUMNS = {
    "psnr_full_db": "truth\ndB",
    "psnr_to_float_db": "float\ndB",
    **{f"bias_{name}_hu": f"{name}\nHU" for name in ("air", "lung", "fat", "soft")},
    "bias_bone_hu": "bone\nHU",
    "noise_soft_hu": "noise\nHU",
    "contour_mm": "outline\nmm",
}


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

    def applied(self, trained: PyTree) -> Apply:
        """Returns the integer network: `trained` has `ranges`, and maybe `params`."""
        variables = settled(
            {**self.network.variables, **trained}, self.bits, self.convolutions
        )
        return functools.partial(_apply(self.network.module, self.bits), variables)


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
    results = _results(settings, rounded, trained, generator)
    results["seconds"] = round(time.monotonic() - started, 1)
    if is_first_process():
        _write(settings, rounded, trained, results, run.workdir)
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
    )


def _results(
    settings: DenoiserTaskSettings,
    rounded: _Rounded,
    trained: PyTree,
    generator: PyTree | None,
) -> dict[str, Any]:
    """Returns the content of results.json, but for the seconds."""
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
    return {
        "network": network.name,
        "teacher": dict(network.identity),
        **_description(settings, network),
        "seed": settings.quantization.seed,
        "judged": network.judge(functions),
    }


def _description(
    settings: DenoiserTaskSettings, network: ImageNetwork
) -> dict[str, Any]:
    """Returns what files say of the quantization."""
    learned = settings.ranges == GENERATED
    run = settings.quantization
    words = {**_WORDS, **network.kinds}
    return {
        "weight_bits": settings.weight_bits,
        "activation_bits": settings.activation_bits,
        "first_last_bits": settings.first_last_bits,
        "ranges": settings.ranges,
        "ranges_in_words": words[settings.ranges],
        "generator_steps": run.generator_steps if learned else 0,
        "student_steps": run.student_steps if learned else 0,
    }


def _write(
    settings: DenoiserTaskSettings,
    rounded: _Rounded,
    trained: PyTree,
    results: Mapping[str, Any],
    workdir: Path,
) -> None:
    """Writes export, ONNX file and results, and logs the table."""
    network = rounded.network
    variables = settled(
        {**network.variables, **trained}, rounded.bits, rounded.convolutions
    )
    description = _description(settings, network)
    manifest = {
        "method": "acq",
        "task": "quantize_denoiser",
        "teacher": dict(network.identity),
        "quantized": description,
    }
    export_variables(workdir / "export", variables, manifest)
    if has_onnx():
        folder = workdir / "export"
        write_files(network, rounded.bits, variables, description, folder)
    else:
        logging.info(
            "No ONNX files, since onnx is missing: %s, then this command with --task "
            "export",
            INSTALL,
        )
    logging.info("\n%s", format_judged(results))
    write_results(workdir, results)


def format_judged(results: Mapping[str, Any]) -> str:
    """Returns a table for each data set; means over slices."""
    bits = f"W{results['weight_bits']}A{results['activation_bits']}"
    tables = []
    for dataset, rows in results["judged"].items():
        cells = [
            (name, *(numbers.get(key) for key in _COLUMNS))
            for name, numbers in rows.items()
        ]
        tables.append(
            format_table(
                ["row", *_COLUMNS.values()],
                cells,
                title=f"{results['network']}, {bits}, {dataset}: PSNR of the full "
                "range, bias and noise against the truth",
            )
        )
    return "\n\n".join(tables)


@functools.cache
def _apply(module: Any, bits: NetworkBits) -> Callable[[PyTree, jax.Array], jax.Array]:
    return jax.jit(lambda variables, x: apply_rounded(module, variables, x, bits)[0])
