"""Task denoise: makes CT with less noise from CT, with a trained network.

Reads `config.denoise.input`: a file, the folder of a DICOM series, or a folder of many
volumes. Writes each volume below `config.denoise.output` with its name and format, and
NAME.json beside it, which says how it was made. A volume that was already made with the
same settings is not made again, so an interrupted command goes on. `jobs` says what
happens with other files there.

The network is the export in `config.denoise.model`, the one that comes with this
software if that is 'shipped', or that in `workdir/export` if it is ''. A flow is
followed as `config.flow` says, whatever its export says. If it is an ONNX file that
task export wrote, `config.denoise.runtime` computes the network: onnxruntime, or
OpenVINO. A slice of the result:
- It has the network's HU, rounded to 1 HU where the input holds integers.
- Padding stays padding, see `stored_hu.restored`; the network sees it at -1024 HU, as
  air.
- HU are clipped to the range that the input's slice is stored in, see `stored_hu`.

The task reads, denoises and writes one slice after the other. So memory does not grow
with the series, but for a few formats that `ct_io.reading` names. The same command
gives the same bits on a CPU or TPU. On GPUs XLA may sum in another order from run to
run, unless XLA_FLAGS holds --xla_gpu_deterministic_ops=true. Another batch size or
number of devices may change the order too. That changes the last bits of float32; after
rounding to HU only values that lie halfway differ. (CNN-10 on two cores: batches of 1,
3 and 4, tiles, and 2 devices gave equal bits.)
"""

from pathlib import Path
from typing import Any

from absl import logging

from common.config import ConfigDict
from common.devices import is_single_process
from common.errors import UserError
from ipv2.ct_io import open_volume, slice_writer
from ipv2.inference.apply import BatchApplier
from ipv2.inference.network import Network
from ipv2.inference.onnx_denoiser import load_onnx
from ipv2.inference.onnx_runtimes import ONNXRUNTIME
from ipv2.inference.shipped import shipped_export
from ipv2.inference.trained import find_export
from ipv2.jobs.job import Job
from ipv2.jobs.run import Destination, Work, conclude, run_jobs
from ipv2.tasks.check import check_config
from ipv2.tasks.embedded_scans import write_embedded
from ipv2.tasks.exported import load_exported
from ipv2.tasks.job_settings import FileSettings, file_settings
from ipv2.tasks.rules import SHIPPED
from ipv2.tasks.scans import check_slices, list_jobs
from ipv2.tasks.terms import job_terms
from ipv2.volumes.checks import check_neighbours
from ipv2.volumes.denoised import (
    MODEL,
    denoised_slices,
    derivation_description,
    series_description,
)


def denoise(config: ConfigDict, workdir: Path) -> None:
    """Denoises every volume of `config.denoise.input` into `config.denoise.output`.

    Args:
      config: the config of a recipe; checked here. Its network does not count.
      workdir: the folder of a finished training run, unless `config.denoise.model`
        names another. The result goes there too if no output is given.

    Raises:
      UserError: the config is wrong, there is no network or no volume,
        a file in the output was made in another way, or no volume could be denoised.
      Incomplete: `config.strict`, and a volume was skipped.
    """
    check_config(config)
    section = config.denoise
    if bool(section.input) == bool(section.embedded):
        raise UserError(
            "task denoise needs one input: --config.denoise.input=DIR (a CT file, a "
            "DICOM series, or a folder of many), or --config.denoise.embedded="
            "sample_ct, real chest CT to try it on"
        )
    if not is_single_process():
        raise UserError(
            "task denoise runs in one process, on all devices of one machine; start it "
            "on every machine with its own --config.denoise.input"
        )
    if section.input:
        source = Path(section.input)
    else:
        source = write_embedded(section.embedded, config.data, workdir / "input")
    output = Path(section.output) if section.output else workdir / "denoised"
    jobs, unused = list_jobs(source, output, key="config.denoise.output")
    network = _load(config, workdir)
    tiling = network.tiling(
        tile=section.tile, overlap=section.overlap, section="config.denoise."
    )
    logging.info("%s", network.describe())
    applier = network.applier(batch_size=section.batch_size, tiling=tiling)
    files = file_settings(config)
    decisive = {"network": network.identity, "tiling": tiling._asdict()}
    tally = run_jobs(
        "denoise",
        jobs,
        lambda job, work: _denoise_one(job, work, files, network, applier),
        lambda job: job_terms(MODEL, job, decisive, files, needs_spacing=False),
        Destination(
            folder=output.resolve(),
            section="config.denoise",
            overwrite=section.overwrite,
        ),
        unused=unused,
    )
    print(
        f"{tally.done} volumes denoised with {network.name} {network.sha256[:8]}, "
        f"{tally.there} there before, {tally.skipped} skipped: {output}"
    )
    conclude(tally, f"{source}: no volume could be denoised", strict=config.strict)


def _load(config: ConfigDict, workdir: Path) -> Network:
    """Returns the network that `config.denoise.model` names."""
    name, runtime = config.denoise.model, config.denoise.runtime
    if name and name != SHIPPED and Path(name).is_file():
        return load_onnx(Path(name), runtime)
    if runtime != ONNXRUNTIME:
        raise UserError(
            f"config.denoise.runtime: got {runtime!r}, which computes ONNX files, and "
            f"config.denoise.model={name!r} is none. Write one with --task export and "
            "the run's --workdir, and name it: config.denoise.model=FILE.onnx"
        )
    export = shipped_export() if name == SHIPPED else find_export(name or workdir)
    return load_exported(config, export)


def _denoise_one(
    job: Job,
    work: Work,
    files: FileSettings,
    network: Network,
    applier: BatchApplier,
) -> dict[str, Any]:
    """Reads, denoises and writes a volume; returns its source and the network."""
    (source,), (place,) = job.sources, work.places
    with open_volume(source, files.reading) as volume:
        check_slices(volume, volume.shape)
        check_neighbours(volume, network.slices)
        work.leave_out(volume.left_out)
        with slice_writer(
            volume,
            volume.shape,
            place,
            format=volume.format,
            multi_frame=files.multi_frame,
            series_description=series_description(volume, network),
            derivation_description=derivation_description(network, applier.tiling),
        ) as write:
            for original, hu in denoised_slices(volume, applier, network):
                write(hu, original.header)
                work.count(1)
    return {"sources": [str(source)], "manifest": _short(network.manifest)}


def _short(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without the list of files."""
    return {key: value for key, value in manifest.items() if key != "files"}
