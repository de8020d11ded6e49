"""Makes files of `torch.save` byte by byte, without torch and without pickle."""

import io
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value):
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module, what):
    return f"c{module}\n{what}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def mapping(**items):
    pairs = [text(key) + value for key, value in items.items()]
    return b"}(" + b"".join(pairs) + b"u"


def listing(*items):
    return b"](" + b"".join(items) + b"e"


def call(function, *arguments):
    return function + group(*arguments) + b"R"


def program(body):
    return b"\x80\x02" + body + b"."


def storage(key, count, kind="FloatStorage", view=None):
    fields = [text("storage"), name("torch", kind), text(key), text("cpu")]
    fields.append(integer(count))
    if view is not None:
        fields.append(view)
    return group(*fields) + b"Q"


def tensor(key, shape, *, strides=None, offset=0, count=None, **options):
    """Returns a tensor; by default C-contiguous and alone in its storage."""
    if strides is None:
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    count = int(np.prod(shape)) if count is None else count
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(key, count, **options),
        integer(offset),
        group(*map(integer, shape)),
        group(*map(integer, strides)),
        b"\x89",
        call(name("collections", "OrderedDict")),
    )


def state_dict(arrays, prefix=""):
    """Returns a dict of float32 tensors, and their storages, by keys with a prefix."""
    storages = {f"{prefix}{i}": a for i, a in enumerate(arrays.values())}
    tensors = [tensor(k, np.shape(a)) for k, a in storages.items()]
    pairs = [text(n) + t for n, t in zip(arrays, tensors, strict=True)]
    return b"}(" + b"".join(pairs) + b"u", {
        key: np.asarray(a, np.float32) for key, a in storages.items()
    }


def arguments(**values):
    """Returns an argparse.Namespace of texts, as `pickle` writes it."""
    state = mapping(**{key: text(value) for key, value in values.items()})
    return name("argparse", "Namespace") + b")\x81" + state + b"b"


def zipped(body, storages, *, order=b"little", compression=zipfile.ZIP_STORED):
    """Returns the format since PyTorch 1.6; `storages` are bytes by key."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("net/data.pkl", program(body))
        archive.writestr("net/byteorder", order)
        for key, content in storages.items():
            archive.writestr(f"net/data/{key}", content)
    return file.getvalue()


def legacy(body, storages, *, little=True):
    """Returns the format before PyTorch 1.6; `storages` are arrays by key."""
    system = mapping(
        protocol_version=integer(1001), little_endian=b"\x88" if little else b"\x89"
    )
    parts = [integer(MAGIC), integer(1001), system, body, listing(*map(text, storages))]
    numbers = [struct.pack("<q", a.size) + a.tobytes() for a in storages.values()]
    return b"".join([*map(program, parts), *numbers])
