"""Keys of results as docs/evaluation.md lists them, and as real results have them."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
_SECTION = "## The keys of `results.json`"
# What the first row of a table's section stands for, by the words before the table.
_TABLES = (
    ("A block, `datasets.NAME`", "datasets.NAME."),
    ("With `config.evaluate.detail`", "detail.NAME."),
    ("The numbers of an image, `IMAGE`", "IMAGE."),
)
_PLACEHOLDERS = {
    "WINDOW": {"lung", "soft_tissue", "full", "ldct_benchmark"},
    "REGION": {"background", "lung", "body"},
    "TISSUE": {"air", "lung", "fat", "soft", "bone"},
    "EDGE": {"vessels", "pleura"},
}
_BEFORE = {
    "regions": "REGION",
    "tissues": "TISSUE",
    "slopes": "EDGE",
    "edge_rises": "EDGE",
    "windows": "WINDOW",
    "strengths": "FILTER",
    **dict.fromkeys(
        ("psnr_db", "ssim", "rmse_hu", "mae_hu", "gmsd", "ms_ssim", "vif"), "WINDOW"
    ),
}
_TREES = ("sd", "interval", "n")


def documented_keys():
    """All keys of the page, with placeholders in capitals."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(_SECTION, 1)[1].split("\n## ", 1)[0]
    prefix, found = "", set()
    for line in section.splitlines():
        for words, start in _TABLES:
            if line.startswith(words):
                prefix = start
        if line.startswith("| `"):
            for key in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
                found |= {prefix + one for one in _expanded(key)}
    return found


def _expanded(key):
    """A key with {a,b} as two keys."""
    match = re.search(r"\{([^}]*)\}", key)
    if match is None:
        return {key}
    before, after = key[: match.start()], key[match.end() :]
    return {
        one for part in match[1].split(",") for one in _expanded(before + part + after)
    }


def keys_of(results):
    """All keys of real results, with placeholders for names."""
    apart = ("datasets", "slices", "windows", "detail")
    found = {
        path
        for key, value in results.items()
        if key not in apart
        for path in _paths(value, key)
    }
    found |= {
        f"windows.WINDOW.{key}"
        for name, window in results.get("windows", {}).items()
        if name in _PLACEHOLDERS["WINDOW"]
        for key in window
    }
    for block in results["datasets"].values():
        found |= {f"datasets.NAME.{key}" for key in _of_block(block)}
    for block in results.get("detail", {}).values():
        found |= {f"detail.NAME.{key}" for key in _of_detail(block)}
    for entry in results["slices"]:
        for key, value in entry.items():
            if isinstance(value, dict):
                found |= {"slices[].IMAGE", *_of_image(value)}
            else:
                found.add(f"slices[].{key}")
    return {re.sub(r"^datasets\.NAME\.(?=IMAGE\.)", "", key) for key in found}


def _of_block(block):
    images = set(block["n"])
    for key, value in block.items():
        if key in images:
            yield from ("IMAGE", *_of_image(value))
        elif key in _TREES:
            for tree in value.values():
                yield f"{key}.IMAGE"
                yield from _of_image(tree)
        elif key == "against_label":
            yield key
            yield from _of_block(value)
        elif key == "error_nps":
            for one in value.values():
                yield from _paths(one, f"{key}.IMAGE")
        elif key == "distances":
            for images in value.values():
                for one in images.values():
                    yield from _paths(one, f"{key}.EXTRACTOR.IMAGE")
        elif isinstance(value, dict):
            yield from _paths(value, key)
        else:
            yield key


def _of_detail(block):
    for key, value in block.items():
        if key in ("undenoised", "denoised"):
            for kinds in value.values():
                for one in kinds.values():
                    yield from _paths(one, f"{key}.TISSUE.KIND")
            continue
        if key != "nodules":
            yield key
            continue
        for images in value.values():
            for kinds in images.values():
                for one in kinds.values():
                    yield from _paths(one, "nodules.TISSUE.IMAGE.KIND")


def _of_image(numbers):
    for key, value in numbers.items():
        yield from (f"IMAGE.{path}" for path in _paths(value, key))


def _paths(value, key):
    """Paths of nested dictionaries below a key."""
    if not isinstance(value, dict):
        yield key
        return
    last = key.rsplit(".", 1)[-1]
    placeholder = _BEFORE.get(last)
    for name, below in value.items():
        if placeholder in _PLACEHOLDERS and name not in _PLACEHOLDERS[placeholder]:
            raise AssertionError(f"{key}.{name}: not one of {placeholder}")
        yield from _paths(below, f"{key}.{placeholder or name}")
