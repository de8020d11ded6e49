"""Teachers as people give them: right ones in other forms, and wrong ones.

`WEIGHTS_CASES` is all of them. Weights are random but of a trained network's kind, see
`made_variables`, so that a right case can be held to what it was made of.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from acq.layers.float import FloatLayers
from acq.models import create_network
from common.typing import PyTree
from tests.acq import foreign_state_dicts as theirs
from tests.acq.cases.case import Build, Case
from tests.acq.models.small import random_variables
from tests.common import torch_bytes as tb

_Tensors = dict[str, np.ndarray]
_Change = Callable[[_Tensors], _Tensors | None]
_TRUNCATED = "damaged or incomplete"


def made_variables(network: nn.Module) -> PyTree:
    """Returns the variables of a network in the cases, always the same."""
    return random_variables(network, jnp.zeros((1, 32, 32, 3)))


def tensors_of(name: str, classes: int = 10, **options: Any) -> _Tensors:
    """Returns `made_variables` as a state dict, most of torchvision or akamaster."""
    network = create_network(name, FloatLayers(), classes, **options)
    names = {
        "resnet18": theirs.torchvision_resnet(2, 2),
        "resnet50": theirs.pytorchcv_resnet(6, stages=4, convolutions=3),
        "mobilenet_v2": theirs.torchvision_mobilenet(),
        "efficientnet_lite0": theirs.listed_efficientnet_lite(),
        "vgg16_bn": theirs.torchvision_vgg(),
    }.get(name)
    if names is None:
        names = theirs.akamaster((getattr(network, "depth", 8) - 2) // 6)
    return theirs.tensors_of(made_variables(network), names)


def _given(path: Path, **keys: Any) -> list[str]:
    values = {"source": "weights", "name": "resnet8", **keys, "weights": path}
    return [f"--config.teacher.{key}={value}" for key, value in values.items()]


def _saved(path: Path, tensors: _Tensors, metadata: Mapping[str, str]) -> None:
    contiguous = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    safetensors.numpy.save_file(contiguous, path, dict(metadata))


def _tensors(
    network: str = "resnet8",
    *,
    change: _Change = lambda tensors: None,
    options: Mapping[str, Any] | None = None,
    file: str = "model.safetensors",
    metadata: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Build:
    """A file of a network's tensors, changed, and keys of `config.teacher`."""

    def build(folder: Path) -> list[str]:
        tensors = tensors_of(network, **(options or {}))
        tensors = change(tensors) or tensors
        _saved(folder / file, tensors, metadata or {"format": "pt"})
        if beside is not None:
            (folder / "config.json").write_text(json.dumps(beside))
        return _given(folder / file, **keys)

    return build


def _content(content: bytes | Callable[[], bytes], file: str = "model.bin") -> Build:
    """A file of given bytes."""

    def build(folder: Path) -> list[str]:
        found = content if isinstance(content, bytes) else content()
        (folder / file).write_bytes(found)
        return _given(folder / file)

    return build


def _statistics(mean: float | None, var: float) -> _Change:
    """Sets the running statistics of every layer; None leaves the means."""

    def change(tensors: _Tensors) -> None:
        for name, tensor in tensors.items():
            if name.endswith("running_mean") and mean is not None:
                tensors[name] = np.full_like(tensor, mean)
            elif name.endswith("running_var"):
                tensors[name] = np.full_like(tensor, var)

    return change


def _one(name: str, value: float) -> _Change:
    """Fills one tensor with a value."""

    def change(tensors: _Tensors) -> None:
        tensors[name] = np.full_like(tensors[name], value)

    return change


def _wrapped(tensors: _Tensors) -> _Tensors:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def _averaged(tensors: _Tensors) -> _Tensors:
    """Names of torch.optim.swa_utils.AveragedModel, and its counter."""
    return {**_wrapped(tensors), "n_averaged": np.array(9)}


def _densenet(_: _Tensors) -> _Tensors:
    """Names of DenseNet-40 in pytorchcv: three stages of equal size, like a ResNet."""
    return {
        f"features.stage{stage}.unit{unit}.conv{i}.{part}": np.ones(shape, np.float32)
        for stage in (1, 2, 3)
        for unit in (1, 2, 3)
        for i in (1, 2)
        for part, shape in (("conv.weight", (12, 12, 3, 3)), ("bn.weight", (12,)))
    } | {"output.weight": np.ones((10, 12), np.float32)}


def _bare_pickle() -> bytes:
    return pickle.dumps(tensors_of("resnet8"), protocol=4)


def _msgpack() -> bytes:
    network = create_network("resnet8", FloatLayers(), 10)
    return flax.serialization.to_bytes(
        jax.tree.map(np.asarray, made_variables(network))
    )


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return file.getvalue()


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3, np.float32))
    return file.getvalue()


def _safetensors_bytes() -> bytes:
    tensors = {n: np.ascontiguousarray(t) for n, t in tensors_of("resnet8").items()}
    return safetensors.numpy.save(tensors)


def _shards(folder: Path) -> list[str]:
    tensors = tensors_of("resnet8")
    places = {}
    for number in (1, 2):
        file = f"model-0000{number}-of-00002.safetensors"
        part = dict(list(tensors.items())[number - 1 :: 2])
        _saved(folder / file, part, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return _given(path)


def _our_names(folder: Path) -> list[str]:
    network = create_network("resnet8", FloatLayers(), 10)
    leaves = theirs.paths_of(made_variables(network))
    arrays: dict[str, Any] = {"/".join(path): np.asarray(leaf) for path, leaf in leaves}
    np.savez(folder / "w.npz", **arrays)
    return _given(folder / "w.npz")


def _checkpoint(
    *keys: str, change: _Change = lambda tensors: None, **given: Any
) -> Build:
    """A checkpoint of a training script, with weights under keys and its arguments.

    The weights under the first key are the network's; those under the others are twice
    as large.
    """

    def build(folder: Path) -> list[str]:
        tensors = tensors_of("resnet8")
        tensors = change(tensors) or tensors
        weights, storages = {}, {}
        for number, key in enumerate(keys):
            scaled = {name: tensor * (number + 1) for name, tensor in tensors.items()}
            weights[key], found = tb.state_dict(scaled, prefix=f"{number}.")
            storages |= {k: array.tobytes() for k, array in found.items()}
        body = tb.mapping(
            **weights, epoch=tb.integer(3), args=tb.arguments(arch="resnet8")
        )
        path = folder / "checkpoint.pth"
        path.write_bytes(tb.zipped(body, storages))
        return _given(path, **given)

    return build


_MEAN, _STD = "(0.485,0.456,0.406)", "(0.229,0.224,0.225)"
_MEAN_255, _STD_255 = "(123.675,116.28,103.53)", "(58.395,57.12,57.375)"

_RIGHT = (
    Case(name="akamaster_names", build=_tensors(), outcome="right"),
    Case(name="data_parallel", build=_tensors(change=_wrapped), outcome="right"),
    Case(name="our_names_npz", build=_our_names, outcome="right"),
    Case(
        name="depth_of_6n_plus_2",
        build=_tensors("resnet14", name="resnet20", depth=14),
        outcome="right",
    ),
    Case(
        name="name_of_6n_plus_2",
        build=_tensors("resnet14", name="resnet14"),
        outcome="right",
    ),
    Case(
        name="normalised_by_nothing",
        build=_tensors(mean="(0.0,0.0,0.0)", std="(1.0,1.0,1.0)"),
        outcome="right",
    ),
    Case(
        name="same_architecture_beside",
        build=_tensors(
            beside={"architecture": "cifar10_resnet8"},
            metadata={"architecture": "resnet8"},
        ),
        outcome="right",
    ),
    Case(
        name="resnet18",
        build=_tensors("resnet18", name="resnet18"),
        outcome="right",
        is_large=True,
    ),
    *(
        Case(
            name=f"pytorchcv_{name}",
            build=_tensors("resnet50", name="resnet50", stride_in_first=first),
            outcome="right",
            is_large=True,
        )
        for name, first in (("resnet50", True), ("resnet50b", False))
    ),
    Case(
        name="mobilenet_width_multiplier",
        build=_tensors(
            "mobilenet_v2",
            options={"width_multiplier": 0.25},
            name="mobilenet_v2",
            width_multiplier=0.25,
        ),
        outcome="right",
        is_large=True,
    ),
    Case(
        name="efficientnet_lite0",
        build=_tensors(
            "efficientnet_lite0",
            file="efficientnet-lite0.safetensors",
            name="efficientnet_lite0",
        ),
        outcome="right",
        is_large=True,
    ),
    Case(
        name="vgg_hidden",
        build=_tensors("vgg16_bn", options={"hidden": 16}, name="vgg16_bn", hidden=16),
        outcome="right",
        is_large=True,
    ),
)

_CHECKPOINTS = (
    *(
        Case(name=f"checkpoint_{key}", build=_checkpoint(key), outcome="right")
        for key in (
            *("state_dict", "model", "network", "weights", "params"),
            *("state_dict_ema", "model_ema"),
        )
    ),
    Case(
        name="checkpoint_averaged_of_data_parallel",
        build=_checkpoint("model_ema", change=_averaged),
        outcome="right",
    ),
    *(
        Case(
            name=f"checkpoint_{key}_beside_{other}",
            build=_checkpoint(key, other, weights_key=key),
            outcome="right",
        )
        for key, other in (
            ("state_dict", "state_dict_ema"),
            ("state_dict_ema", "state_dict"),
            ("model_ema", "model"),
            ("teacher", "student"),
        )
    ),
    *(
        Case(
            name=f"checkpoint_{key}_or_{other}",
            build=_checkpoint(key, other),
            expected=(
                f"--config.teacher.weights_key=KEY, with one of {key}, {other}",
                "nothing in the file was executed",
            ),
        )
        for key, other in (
            ("state_dict", "state_dict_ema"),
            ("model", "model_ema"),
            ("teacher", "student"),
        )
    ),
    Case(
        name="checkpoint_without_that_key",
        build=_checkpoint("model", "model_ema", weights_key="ema"),
        expected=("no weights under 'ema'", "under model, model_ema"),
    ),
    Case(
        name="a_key_of_no_checkpoint",
        build=_tensors(weights_key="state_dict"),
        expected=("config.teacher.weights_key: got 'state_dict', accepted: ''",),
    ),
)

_SETTINGS = (
    Case(
        name="mean_and_std_in_255",
        build=_tensors(mean=_MEAN_255, std=_STD_255),
        expected=(
            *("teacher.mean", "divide by 255: (0.485, 0.456, 0.406)"),
            *("teacher.std", "(0.229, 0.224, 0.225)"),
        ),
    ),
    Case(
        name="mean_alone_in_255",
        build=_tensors(mean=_MEAN_255, std=_STD),
        expected=("teacher.mean", "divide by 255: (0.485, 0.456, 0.406)"),
        forbidden=("teacher.std",),
    ),
    Case(
        name="std_alone_in_255",
        build=_tensors(mean=_MEAN, std=_STD_255),
        expected=("teacher.std", "divide by 255: (0.229, 0.224, 0.225)"),
        forbidden=("teacher.mean",),
    ),
    Case(
        name="mean_of_caffe",
        build=_tensors(mean="(103.939,116.779,123.68)", std="(1.0,1.0,1.0)"),
        expected=("teacher.mean", "(0.4076, 0.458, 0.485)", "0.003922"),
    ),
    Case(
        name="unknown_name",
        build=_tensors(name="densenet121"),
        expected=(
            "resnet18",
            "vgg16_bn",
            "package.module:Class",
            "acq/models/README.md",
        ),
    ),
    Case(
        name="imagenet_name_outside_the_zoo",
        build=_tensors(name="resnet152"),
        expected=("teacher.name: got 'resnet152'", "package.module:Class"),
    ),
    Case(
        name="depth_not_6n_plus_2",
        build=_tensors(depth=21),
        expected=("teacher.depth: got 21", "6 n + 2"),
    ),
    Case(
        name="option_of_another_network",
        build=_tensors(width_multiplier=0.5),
        expected=("teacher.width_multiplier", "leave it 0.0"),
    ),
)

_OTHER_NETWORKS = (
    Case(
        name="another_depth",
        build=_tensors("resnet14"),
        expected=("give --config.teacher.depth=14.",),
    ),
    Case(
        name="a_depth_that_imagenet_has_too",
        build=_tensors("cifar_resnet50"),
        expected=("give --config.teacher.depth=50.",),
    ),
    Case(
        name="another_shortcut",
        build=_tensors(options={"shortcut": "projection"}),
        expected=("give --config.teacher.shortcut=projection.",),
    ),
    Case(
        name="other_classes",
        build=_tensors(options={"classes": 100}),
        expected=("give --config.teacher.classes=100.",),
    ),
    Case(
        name="another_depth_shortcut_and_classes",
        build=_tensors("resnet14", options={"classes": 7, "shortcut": "projection"}),
        expected=("depth=14", "classes=7", "shortcut=projection"),
    ),
    Case(
        name="another_family",
        build=_tensors("resnet18"),
        expected=("give --config.teacher.name=resnet18.",),
        is_large=True,
    ),
    Case(
        name="another_width_multiplier",
        build=_tensors(
            "mobilenet_v2", options={"width_multiplier": 0.25}, name="mobilenet_v2"
        ),
        expected=("give --config.teacher.width_multiplier=0.25.",),
        is_large=True,
    ),
    Case(
        name="densenet",
        build=_tensors(change=_densenet),
        expected=("No network here has exactly", "package.module:Class"),
        forbidden=("teacher.depth", "mobilenetv2_w1"),
    ),
    Case(
        name="a_tensor_too_many",
        build=_tensors(change=lambda t: {**t, "aux.weight": np.ones(3, np.float32)}),
        expected=("left over (1)", "aux.weight", "acq/models/README.md"),
    ),
    Case(
        name="pytorchcv_strides_not_stated",
        build=_tensors("resnet50", name="resnet50"),
        expected=("config.teacher.stride_in_first", "=True", "resnet50b", "=False"),
        is_large=True,
    ),
)

_STATED = (
    Case(
        name="another_architecture_beside",
        build=_tensors(beside={"architecture": "preactresnet8"}),
        expected=("config.json says", "'preactresnet8'", "package.module:Class"),
    ),
    Case(
        name="another_architecture_in_metadata",
        build=_tensors(metadata={"architecture": "seresnet8"}),
        expected=("the metadata of", "'seresnet8'"),
    ),
    Case(
        name="another_mean_beside",
        build=_tensors(beside={"pretrained_cfg": {"mean": [0.1, 0.1, 0.1]}}),
        expected=("config.json says", "--config.teacher.mean=(0.1,0.1,0.1)"),
    ),
    Case(
        name="resnetblur18_by_its_name",
        build=_tensors("resnet18", file="resnetblur18.safetensors", name="resnet18"),
        expected=("the name of", "'resnetblur18'"),
        is_large=True,
    ),
    Case(
        name="efficientnet_lite0_of_other_padding_by_its_name",
        build=_tensors(
            "efficientnet_lite0",
            file="efficientnet_lite0_ra-1.safetensors",
            name="efficientnet_lite0",
        ),
        expected=("the name of", "'efficientnet_lite0_ra'", "padding"),
        is_large=True,
    ),
    Case(
        name="another_hash_is_pinned",
        build=_tensors(sha256="0" * 64),
        expected=("its SHA-256 is", "config.teacher.sha256"),
    ),
)

_NUMBERS = (
    Case(
        name="statistics_never_trained",
        build=_tensors(change=_statistics(0.0, 1.0)),
        expected=("never trained", "bn1.running_mean is all 0", "running_var all 1"),
    ),
    Case(
        name="variances_all_0",
        build=_tensors(change=_statistics(None, 0.0)),
        expected=("running_var, variances", "are all 0, as in 6 other layers"),
    ),
    Case(
        name="variances_of_a_layer_all_0",
        build=_tensors(change=_one("layer2.0.bn1.running_var", 0.0)),
        expected=("layer2.0.bn1.running_var, variances", "are all 0."),
    ),
    Case(
        name="not_finite",
        build=_tensors(change=_one("conv1.weight", float("nan"))),
        expected=("conv1.weight is not finite",),
    ),
    Case(
        name="negative_variances",
        build=_tensors(change=_one("bn1.running_var", -1.0)),
        expected=("bn1.running_var, a variance, is below 0",),
    ),
)

_KINDS: Mapping[str, tuple[Build, tuple[str, ...]]] = {
    "empty": (_content(b""), ("empty", "download it again")),
    "git_lfs_pointer": (
        _content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("Git LFS pointer", "git lfs pull"),
    ),
    "html": (
        _content(b"\n<!DOCTYPE html><html><title>GitHub</title></html>"),
        ("a web page", "saved instead of the file"),
    ),
    "hdf5": (_content(b"\x89HDF\r\n\x1a\n" + bytes(64)), ("HDF5", "np.savez")),
    "gzip": (_content(lambda: gzip.compress(_safetensors_bytes())), ("gzip", "unpack")),
    "tar": (_content(_tar, "model.pth.tar"), ("tar archive", "unpack")),
    "onnx": (
        _content(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:"),
        ("ONNX", "safetensors.torch.save_file(model.state_dict()"),
    ),
    "msgpack": (_content(_msgpack), ("msgpack (Flax)", "np.savez")),
    "gguf": (_content(b"GGUF" + struct.pack("<IQQ", 3, 0, 0)), ("GGUF",)),
    "npy": (_content(_npy), (".npy", "np.savez")),
    "config_json": (
        _content(b'{"architecture": "resnet8"}', "config.json"),
        ("JSON", "holds no weights"),
    ),
    "index_json": (_shards, ("the index of weights in 2 files", "merged.safetensors")),
    "other_zip": (_content(lambda: _zip("model/weights.txt")), ("a zip", "unpack")),
    "keras_zip": (
        _content(lambda: _zip("config.json", "model.weights.h5")),
        ("a model of Keras", "np.savez"),
    ),
    "pickle_of_arrays": (_content(_bare_pickle), ("forbidden global", "np.savez")),
    "pickle_of_numbers": (
        _content(lambda: pickle.dumps({"accuracy": 1.0}, protocol=4)),
        ("a pickle, but not one that torch.save wrote", "state_dict()"),
    ),
    "text": (_content(b"epoch 1: loss 2.3\n"), ("no known format",)),
}
_FILES = (
    *(
        Case(
            name=f"file_{kind}",
            build=build,
            expected=expected,
            forbidden=("damaged",),
        )
        for kind, (build, expected) in _KINDS.items()
    ),
    Case(
        name="file_truncated",
        build=_content(lambda: _safetensors_bytes()[:-100]),
        expected=(_TRUNCATED, "download it again"),
    ),
    Case(
        name="file_truncated_zip",
        build=_content(lambda: _zip("model/data.pkl")[:-10]),
        expected=(_TRUNCATED,),
    ),
)

WEIGHTS_CASES = (
    *(*_RIGHT, *_CHECKPOINTS, *_SETTINGS, *_OTHER_NETWORKS),
    *(*_STATED, *_NUMBERS, *_FILES),
)
