"""Attention-corrected data-free quantization (arXiv 2301.07266).

    small = acq.quantize(network, variables, mean=mean, std=std, image_size=32)
    logits = small(images)
    small.save(folder)
    small = acq.load_quantized(folder)
    small.save_onnx("model.onnx")

Names are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acq.deploy.packed import load_packed
    from acq.export import QuantizedNetwork, load_quantized
    from acq.quantization.in_memory import quantize
    from acq.quantization.settings import GeneratorSettings, StudentSettings
    from acq.teacher.loading import load_teacher
    from acq.teacher.settings import TeacherSettings

__all__ = [
    "GeneratorSettings",
    "QuantizedNetwork",
    "StudentSettings",
    "TeacherSettings",
    "load_packed",
    "load_quantized",
    "load_teacher",
    "quantize",
]
_MODULES = {
    "GeneratorSettings": "acq.quantization.settings",
    "QuantizedNetwork": "acq.export",
    "StudentSettings": "acq.quantization.settings",
    "TeacherSettings": "acq.teacher.settings",
    "load_packed": "acq.deploy.packed",
    "load_quantized": "acq.export",
    "load_teacher": "acq.teacher.loading",
    "quantize": "acq.quantization.in_memory",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Returns all names, imported or not."""
    return sorted({*globals(), *__all__})
