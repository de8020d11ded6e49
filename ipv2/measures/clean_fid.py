"""Clean-fid's Inception and CLIP as feature extractors (Parmar et al., CVPR 2022).

FID depends on how images are resized and on the network's weights as much as on the
images. So both are clean-fid's own: Pillow's bicubic resizing in float to 299 x 299 for
Inception (`mode="clean"`); torchvision's to 224 x 224 for CLIP. Grey images become
three equal channels. Only the distances are ours, see `distributions`.

Needed: `pip install -r requirements-metrics.txt`. Weights are fetched once, into the
folder that the environment variable IPV2_METRIC_WEIGHTS names, `~/.cache/ipv2/metrics`
without it. On a computer without internet, put the files there:

| file                    | from                                              |
|-------------------------|---------------------------------------------------|
| inception-2015-12-05.pt | `INCEPTION.url`, NVIDIA's copy of TensorFlow's    |
| ViT-B-32.pt             | `CLIP.url`, OpenAI; its address holds its SHA-256 |
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from common.errors import UserError
from common.files import replacing

FOLDER_VARIABLE = "IPV2_METRIC_WEIGHTS"
_TIMEOUT_S = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights.

    Attributes:
      file: its name.
      url: where it is published.
      sha256: its digest, or '' if its publisher states none.
    """

    file: str
    url: str
    sha256: str = ""


INCEPTION = Weights(
    file="inception-2015-12-05.pt",
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt",
)
_CLIP_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP = Weights(
    file="ViT-B-32.pt",
    url=f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-B-32.pt",
    sha256=_CLIP_SHA256,
)


def inception(images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n d"]:
    """Returns Inception v3's 2048 features of its last pooling, clean-fid's.

    Raises:
      UserError: A package or the weights are missing.
    """
    network, resize = _inception(weights_folder())
    return _features(network, resize, images)


def clip(images: UInt8[np.ndarray, "n h w"]) -> Float[np.ndarray, "n d"]:
    """Returns CLIP ViT-B/32's 512 features of images, clean-fid's.

    Raises:
      UserError: A package or the weights are missing.
    """
    network, resize = _clip(weights_folder())
    return _features(network, resize, images)


def weights_folder() -> Path:
    """Returns the folder of the weights."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "ipv2" / "metrics"


def fetch_weights(weights: Weights, folder: Path) -> Path:
    """Returns the file of weights, which is downloaded if it is not there.

    Raises:
      UserError: It cannot be downloaded, or it is another file.
    """
    path = folder / weights.file
    if not path.exists():
        try:
            with (
                urllib.request.urlopen(weights.url, timeout=_TIMEOUT_S) as response,
                replacing(path) as temporary,
                temporary.open("wb") as file,
            ):
                while part := response.read(1 << 20):
                    file.write(part)
        except (urllib.error.URLError, TimeoutError) as error:
            raise UserError(
                f"{path}: there are no such weights, and they cannot be downloaded "
                f"({error}). Download {weights.url} on a computer with internet, and "
                f"put the file there, or name its folder: {FOLDER_VARIABLE}=folder."
            ) from error
    if weights.sha256 and (found := weights_sha256(path)) != weights.sha256:
        raise UserError(
            f"{path}: it is not the published file. Its SHA-256 is {found}, accepted: "
            f"{weights.sha256}. Remove it; it is then downloaded again."
        )
    return path


def weights_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, to state beside a result."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _inception(folder: Path) -> tuple[Any, Any]:
    """Returns (network, resizing of one RGB image)."""
    _require(("torch", "cleanfid", "requests"))
    path = fetch_weights(INCEPTION, folder)
    networks = importlib.import_module("cleanfid.inception_torchscript")
    resizing = importlib.import_module("cleanfid.resize")
    try:
        network = networks.InceptionV3W(str(path.parent), download=False)
    except RuntimeError as error:
        raise UserError(
            f"{path}: PyTorch cannot read it ({str(error).splitlines()[0]}). Remove "
            "it; it is then downloaded again."
        ) from error
    return network.to(_device()).eval(), resizing.build_resizer("clean")


@functools.cache
def _clip(folder: Path) -> tuple[Any, Any]:
    """Returns (network, resizing of one RGB image)."""
    _require(("torch", "torchvision", "cleanfid", "requests", "clip"))
    path = fetch_weights(CLIP, folder)
    features = importlib.import_module("cleanfid.clip_features")
    # CLIP's loader takes a path instead of a name.
    network = features.CLIP_fx(str(path), device=_device())
    return network, features.img_preprocess_clip


def _features(network: Any, resize: Any, images: np.ndarray) -> np.ndarray:
    """Returns the features of grey images; the network takes RGB of 0 to 255."""
    torch = importlib.import_module("torch")
    colour = np.repeat(images[..., None], 3, axis=-1)
    resized = np.stack([np.asarray(resize(image), np.float32) for image in colour])
    batch = torch.from_numpy(resized.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        found = network(batch.to(_device()))
    return found.float().cpu().numpy()


def _device() -> Any:
    torch = importlib.import_module("torch")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _require(packages: Sequence[str]) -> None:
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(
            "config.evaluate.features: the features need packages that are not "
            f"installed ({', '.join(missing)}). Install them with `pip install -r "
            "requirements-metrics.txt`, or name an extractor of your own."
        )
