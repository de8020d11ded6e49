"""Names of tensors in other libraries, written out block by block.

Each function yields (our path of a module, their name of it); `tensors_of` makes a
state dict of a network's variables under such names, laid out as PyTorch has them.
"""

import functools

import jax
import numpy as np

LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def akamaster(blocks, *, stages=3, convolutions=2, shortcut="shortcut", head="linear"):
    yield from [("conv1", "conv1"), ("bn1", "bn1")]
    for stage in range(1, stages + 1):
        for block in range(blocks):
            ours, theirs = f"layer{stage}_{block}", f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                yield f"{ours}/conv{i}", f"{theirs}.conv{i}"
                yield f"{ours}/bn{i}", f"{theirs}.bn{i}"
            yield f"{ours}/downsample_conv", f"{theirs}.{shortcut}.0"
            yield f"{ours}/downsample_bn", f"{theirs}.{shortcut}.1"
    yield ("linear" if stages == 3 else "fc"), head


def torchvision_resnet(blocks, convolutions):
    return akamaster(
        blocks, stages=4, convolutions=convolutions, shortcut="downsample", head="fc"
    )


def chenyaofo(blocks):
    return akamaster(blocks, shortcut="downsample", head="fc")


def pytorchcv_resnet(blocks, *, stages, convolutions):
    init = "features.init_block" + (".conv" if stages == 4 else "")
    yield from [("conv1", f"{init}.conv"), ("bn1", f"{init}.bn")]
    for stage in range(1, stages + 1):
        for block in range(blocks):
            ours = f"layer{stage}_{block}"
            theirs = f"features.stage{stage}.unit{block + 1}"
            for i in range(1, convolutions + 1):
                yield f"{ours}/conv{i}", f"{theirs}.body.conv{i}.conv"
                yield f"{ours}/bn{i}", f"{theirs}.body.conv{i}.bn"
            yield f"{ours}/downsample_conv", f"{theirs}.identity_conv.conv"
            yield f"{ours}/downsample_bn", f"{theirs}.identity_conv.bn"
    yield ("linear" if stages == 3 else "fc"), "output"


def torchvision_mobilenet():
    for place in (0, 18):
        yield f"features_{place}/conv", f"features.{place}.0"
        yield f"features_{place}/bn", f"features.{place}.1"
    for place in range(1, 18):
        ours, theirs = f"features_{place}", f"features.{place}.conv"
        first = 0 if place == 1 else 1
        if first:
            yield f"{ours}/conv_expand", f"{theirs}.0.0"
            yield f"{ours}/bn_expand", f"{theirs}.0.1"
        yield f"{ours}/conv_depthwise", f"{theirs}.{first}.0"
        yield f"{ours}/bn_depthwise", f"{theirs}.{first}.1"
        yield f"{ours}/conv_project", f"{theirs}.{first + 1}"
        yield f"{ours}/bn_project", f"{theirs}.{first + 2}"
    yield "classifier", "classifier.1"


def timm_mobilenet():
    yield from [("features_0/conv", "conv_stem"), ("features_0/bn", "bn1")]
    yield from [("features_18/conv", "conv_head"), ("features_18/bn", "bn2")]
    places = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    places += [(3, 3), (4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2), (6, 0)]
    for place, (stage, block) in enumerate(places, start=1):
        ours, theirs = f"features_{place}", f"blocks.{stage}.{block}"
        names = ["conv_pw", "conv_dw", "conv_pwl"] if stage else ["conv_dw", "conv_pw"]
        kinds = ["expand", "depthwise", "project"][-len(names) :]
        for i, (kind, name) in enumerate(zip(kinds, names, strict=True), start=1):
            yield f"{ours}/conv_{kind}", f"{theirs}.{name}"
            yield f"{ours}/bn_{kind}", f"{theirs}.bn{i}"
    yield "classifier", "classifier"


def timm_efficientnet_lite():
    yield from [("features_0/conv", "conv_stem"), ("features_0/bn", "bn1")]
    yield from [("features_17/conv", "conv_head"), ("features_17/bn", "bn2")]
    places = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    places += [(4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2), (5, 3), (6, 0)]
    for place, (stage, block) in enumerate(places, start=1):
        ours, theirs = f"features_{place}", f"blocks.{stage}.{block}"
        names = ["conv_pw", "conv_dw", "conv_pwl"] if stage else ["conv_dw", "conv_pw"]
        kinds = ["expand", "depthwise", "project"][-len(names) :]
        for i, (kind, name) in enumerate(zip(kinds, names, strict=True), start=1):
            yield f"{ours}/conv_{kind}", f"{theirs}.{name}"
            yield f"{ours}/bn_{kind}", f"{theirs}.bn{i}"
    yield "classifier", "classifier"


def listed_efficientnet_lite():
    yield from [("features_0/conv", "_conv_stem"), ("features_0/bn", "_bn0")]
    yield from [("features_17/conv", "_conv_head"), ("features_17/bn", "_bn1")]
    for block in range(16):
        ours, theirs = f"features_{block + 1}", f"_blocks.{block}"
        for i, kind in enumerate(["expand", "depthwise", "project"]):
            if (block, i) != (0, 0):
                yield f"{ours}/conv_{kind}", f"{theirs}._{kind}_conv"
                yield f"{ours}/bn_{kind}", f"{theirs}._bn{i}"
    yield "classifier", "_fc"


def pytorchcv_mobilenet():
    yield "features_0/conv", "features.init_block.conv"
    yield "features_0/bn", "features.init_block.bn"
    yield "features_18/conv", "features.final_block.conv"
    yield "features_18/bn", "features.final_block.bn"
    place = 0
    for stage, units in enumerate([1, 2, 3, 7, 4], start=1):
        for unit in range(1, units + 1):
            place += 1
            for i, kind in enumerate(["expand", "depthwise", "project"], start=1):
                theirs = f"features.stage{stage}.unit{unit}.conv{i}"
                if (place, i) != (1, 1):
                    yield f"features_{place}/conv_{kind}", f"{theirs}.conv"
                    yield f"features_{place}/bn_{kind}", f"{theirs}.bn"
    yield "classifier", "output"


VGG16_PLACES = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]


def torchvision_vgg(dense=("classifier.0", "classifier.3", "classifier.6")):
    for place in VGG16_PLACES:
        yield f"features_{place}", f"features.{place}"
        yield f"features_{place + 1}", f"features.{place + 1}"
    for place, name in zip((0, 3, 6), dense, strict=True):
        yield f"classifier_{place}", name


def timm_vgg():
    return torchvision_vgg(("pre_logits.fc1", "pre_logits.fc2", "head.fc"))


def pytorchcv_vgg():
    units = [(s, u) for s, n in enumerate([2, 2, 3, 3, 3], 1) for u in range(1, n + 1)]
    for place, (stage, unit) in zip(VGG16_PLACES, units, strict=True):
        yield f"features_{place}", f"features.stage{stage}.unit{unit}.conv"
        yield f"features_{place + 1}", f"features.stage{stage}.unit{unit}.bn"
    names = ("output.fc1.fc", "output.fc2.fc", "output.fc3")
    yield from zip((f"classifier_{i}" for i in (0, 3, 6)), names, strict=True)


def paths_of(variables):
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    for path, leaf in leaves:
        yield tuple(key.key for key in path), leaf


def tensors_of(variables, names):
    """Returns a state dict of variables, from (path of a module, foreign name)."""
    names, found = dict(names), {}
    for (_, *modules, leaf), values in paths_of(variables):
        theirs = names["/".join(modules)]
        values = np.asarray(values)
        if leaf == "kernel":
            values = values.T if values.ndim == 2 else values.transpose(3, 2, 0, 1)
        found[f"{theirs}.{LEAVES[leaf]}"] = values
        if leaf == "mean":
            found[f"{theirs}.num_batches_tracked"] = np.array(9)
    return found


@functools.cache
def shapes_of(network, size=32, channels=3):
    x = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    return dict(jax.eval_shape(network.init, jax.random.key(0), x))


def random_variables(network):
    """Returns variables of random numbers, with positive variances."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32),
        shapes_of(network),
    )
