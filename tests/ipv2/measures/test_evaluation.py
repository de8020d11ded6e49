"""Tests of ipv2.measures.evaluation and ipv2.measures.summary."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures import evaluation
from ipv2.measures.evaluation import evaluate_slices, network_output, prepared_slices
from ipv2.measures.metrics import REGIONS, WINDOWS
from ipv2.measures.summary import image_names, slice_numbers, summary_block
from ipv2.measures.tissues import TISSUES
from ipv2.models import create_model
from ipv2.training.denoiser import Regression, make_denoise
from ipv2.training.losses import create_loss

NOISE_HU = {"background": 20.0, "lung": 60.0, "body": 40.0}
BIAS_HU = {"background": 3.0, "lung": -12.0, "body": 6.0}
LEVEL_HU = {"background": -1000, "lung": -800, "body": 40}


def make_slice(seed=0, size=48, lung=True, label=True):
    """Returns a body with a lung, known noise and bias, and label = truth + 7 HU."""
    rng = np.random.default_rng(seed)
    body = np.zeros((size, size), bool)
    body[6:-6, 6:-6] = True
    inner = np.zeros_like(body)
    if lung:
        inner[14:-14, 14:-14] = True
    regions = {"background": ~body, "lung": inner, "body": body & ~inner}
    clean, noise = np.zeros((2, size, size))
    for name, mask in regions.items():
        clean[mask] = LEVEL_HU[name]
        values = rng.normal(size=mask.sum())
        if len(values):
            # Exactly the stated mean and standard deviation.
            values = (values - values.mean()) / values.std()
        noise[mask] = BIAS_HU[name] + NOISE_HU[name] * values
    item = {
        "lq": (clean + noise).astype(np.float32)[..., None],
        "reference": clean.astype(np.int16),
        "regions": regions,
        "spacing_mm": np.float32([0.5, 0.5]),
    }
    return item | ({"label": (clean + 7).astype(np.int16)} if label else {})


def halve_noise(scale, hu):
    """A denoiser that knows the phantom: multiplies the error by `scale`."""
    clean = jnp.asarray(make_slice(size=hu.shape[2])["reference"], jnp.float32)
    return clean[None] + scale * (hu[..., 0] - clean[None])


def measure(slices, batch_size=2, aligned=True, **options):
    make = network_output(halve_noise, 0.5)
    return evaluate_slices(
        make, slices, batch_size=batch_size, aligned=aligned, **options
    )


def evaluate(slices, **options):
    """Returns the block of slices of one patient."""
    measured = measure(slices, **options)
    count = len(measured.reference["input"]["rmse_hu"]["full"])
    return summary_block(measured.reference, ["a"] * count)


def assert_close(a, b, path=""):
    """Checks that trees are equal, numbers up to float32 rounding."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_close(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4), path
    elif isinstance(a, list):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4), path
    else:
        assert a == b, path


@pytest.mark.slow
def test_region_metrics_against_an_aligned_reference_are_the_known_noise_and_bias():
    results = evaluate([make_slice(seed) for seed in range(3)])
    assert results["n_slices"] == 3
    for region in REGIONS:
        before = results["input"]["regions"][region]
        after = results["output"]["regions"][region]
        assert before["n_slices"] == after["n_slices"] == 3
        # float32 sums.
        assert before["noise_sd_hu"] == pytest.approx(NOISE_HU[region], rel=1e-3)
        assert before["bias_hu"] == pytest.approx(BIAS_HU[region], abs=1e-2)
        # Medians over windows of 25 to 49 pixels: within a few percent.
        local = before["local_noise_sd_hu"]
        assert local == pytest.approx(NOISE_HU[region], rel=0.1)
        assert after["noise_sd_hu"] == pytest.approx(NOISE_HU[region] / 2, rel=1e-3)
        assert after["bias_hu"] == pytest.approx(BIAS_HU[region] / 2, abs=1e-2)


@pytest.mark.slow
def test_tissues_have_the_noise_of_their_region_and_what_is_missing_is_none():
    tissues = evaluate([make_slice()])["input"]["tissues"]
    assert set(tissues) == set(TISSUES)
    pairs = {"air": "background", "lung": "lung", "soft": "body"}
    for tissue, region in pairs.items():
        assert tissues[tissue]["n"] == 1
        # Inner pixels alone: a sample of the region's, 100 to 1000 pixels.
        noise = tissues[tissue]["noise_sd_hu"]
        assert noise == pytest.approx(NOISE_HU[region], rel=0.15)
    for tissue in ("fat", "bone"):
        assert tissues[tissue] == {"bias_hu": None, "noise_sd_hu": None, "n": 0}


@pytest.mark.slow
def test_against_a_label_bias_is_of_the_label_and_noise_of_the_image():
    measured = measure([make_slice(seed) for seed in range(3)])
    block = summary_block(measured.label, ["a"] * 3)
    for region in REGIONS:
        before = block["input"]["regions"][region]
        assert before["bias_hu"] == pytest.approx(BIAS_HU[region] - 7, abs=1e-2)
        # Medians over windows of 25 to 49 pixels: within a few percent.
        assert before["noise_sd_hu"] == pytest.approx(NOISE_HU[region], rel=0.1)


@pytest.mark.slow
def test_places_are_compared_with_an_aligned_reference_alone():
    measured = measure([make_slice()])
    places = {"tissues", "dense_foci", "slopes", "contour_mm", "error_frequencies"}
    assert places < set(measured.reference["output"])
    assert not places & set(measured.label["output"])
    loose = measure([make_slice(label=False)], aligned=False)
    assert not places & set(loose.reference["output"]) and loose.label == {}


@pytest.mark.slow
def test_an_unknown_pixel_size_gives_no_millimetres():
    items = [
        make_slice(seed) | {"spacing_mm": np.float32([np.nan] * 2)} for seed in range(2)
    ]
    results = evaluate(items)
    assert results["output"]["contour_mm"] is None
    assert results["interval"]["output"]["contour_mm"] is None
    assert np.isfinite(results["output"]["psnr_db"]["full"])


@pytest.mark.slow
@pytest.mark.optimized
def test_results_do_not_depend_on_the_batch_size():
    slices = [make_slice(seed) for seed in range(3)]
    expected = evaluate(slices, batch_size=1)
    # Two of two and one of two.
    assert_close(evaluate(slices, batch_size=2), expected)


@pytest.mark.slow
def test_sizes_may_change_between_slices_and_slices_may_stream():
    slices = [make_slice(0), make_slice(1, size=40), make_slice(2, size=40)]
    streamed = evaluate(iter(slices), batch_size=2)
    separate = [evaluate([item]) for item in slices]
    for name in ("input", "output"):
        for metric in ("psnr_db", "ssim", "rmse_hu"):
            for window, value in streamed[name][metric].items():
                mean = np.mean([r[name][metric][window] for r in separate])
                assert value == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
def test_an_image_size_is_compiled_once_whatever_the_number_of_images():
    evaluation._measure.clear_cache()

    def many(batch):
        image = evaluation.middle_slice(batch)
        return {name: image * 0.9 for name in ("gaussian", "tv", "bm3d", "output")}

    def compiled(size):
        slices = [make_slice(seed, size=size, label=False) for seed in range(3)]
        evaluate_slices(many, slices, batch_size=2, aligned=True)
        return evaluation._measure._cache_size()

    assert compiled(48) == compiled(48) == 1
    assert compiled(40) == 2


def test_images_keep_their_order_and_the_input_is_the_first():
    def make(batch):
        image = evaluation.middle_slice(batch)
        return {"tv": image, "output": image, "bm3d": image}

    slices = [make_slice(seed, label=False) for seed in range(3)]
    measured = evaluate_slices(make, slices, batch_size=2, aligned=False)
    block = summary_block(measured.reference, ["a", "a", "b"])
    assert image_names(block) == ["input", "tv", "output", "bm3d"]
    assert list(slice_numbers(measured, 2)) == image_names(block)


def test_a_region_missing_from_slices_is_skipped_and_counted():
    one = evaluate([make_slice(0), make_slice(1, lung=False)])
    alone = evaluate([make_slice(0)])
    lung = one["input"]["regions"]["lung"]
    assert lung["n_slices"] == one["n"]["input"]["regions"]["lung"]["bias_hu"] == 1
    assert_close(lung, alone["input"]["regions"]["lung"])
    none = evaluate([make_slice(1, lung=False)])
    expected = dict.fromkeys(("bias_hu", "noise_sd_hu", "local_noise_sd_hu"))
    assert none["input"]["regions"]["lung"] == expected | {"n_slices": 0}


def test_a_block_has_deviations_and_intervals_of_the_shape_of_its_means():
    measured = measure([make_slice(seed) for seed in range(3)])
    block = summary_block(measured.reference, ["a", "b", "b"])
    assert block["interval_over"] == "patients" and block["n_patients"] == 2
    values = measured.reference["output"]["psnr_db"]["lung"]
    assert block["output"]["psnr_db"]["lung"] == pytest.approx(values.mean(), rel=1e-5)
    sd = block["sd"]["output"]["psnr_db"]["lung"]
    assert sd == pytest.approx(values.std(ddof=1), rel=1e-4)
    low, high = block["interval"]["output"]["psnr_db"]["lung"]
    assert low <= block["output"]["psnr_db"]["lung"] <= high
    assert block["n"]["output"]["contour_mm"] == 3
    assert summary_block(measured.reference, ["a"] * 3)["interval_over"] == "slices"
    assert json.loads(json.dumps(block, allow_nan=False)) == block


def test_the_numbers_of_a_slice_are_plain_and_without_nan():
    measured = measure([make_slice(0), make_slice(1, lung=False)])
    first, second = (slice_numbers(measured, index) for index in range(2))
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert second["input"]["tissues"]["lung"]["bias_hu"] is None
    value = measured.reference["output"]["psnr_db"]["lung"][0]
    # Six digits.
    assert first["output"]["psnr_db"]["lung"] == pytest.approx(value, rel=1e-5)


def test_prepare_makes_reference_and_regions_on_device():
    def prepare(batch):
        return batch | {"reference": batch["gt"] - 7}

    item = make_slice()
    raw = {**item, "gt": item["reference"] + 7}
    del raw["reference"]
    assert_close(evaluate([raw], prepare=prepare), evaluate([item]))
    ready = list(prepared_slices([raw] * 3, prepare, batch_size=2))
    assert len(ready) == 3
    np.testing.assert_array_equal(ready[2]["reference"], item["reference"])


@pytest.mark.slow
def test_network_gets_and_returns_network_units():
    def applied(**attributes):
        model = create_model("cnn10", **attributes)
        return make_denoise(Regression(model=model, loss=create_loss("mse")))

    hu = jnp.full((2, 16, 16, 1), -1000.0)
    variables = {
        "params": {
            name: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[-1])}
            for name, shape in (
                ("conv1", (9, 9, 1, 64)),
                ("conv2", (3, 3, 64, 32)),
                ("conv3", (5, 5, 32, 1)),
            )
        }
    }
    variables["params"]["conv3"]["bias"] = jnp.asarray([0.04])
    # 0.04 units are 40 HU.
    np.testing.assert_allclose(applied(residual=False)(variables, hu), 40, rtol=1e-6)
    np.testing.assert_allclose(applied()(variables, hu), -960, rtol=1e-6)
    assert applied() is applied()  # so that jit compiles it once


@pytest.mark.parametrize(
    ("slices", "batch_size", "message"),
    [
        ([], 1, "no slice to evaluate"),
        ([make_slice()], 0, "batch_size must be >= 1, got 0"),
        ([make_slice(), make_slice(label=False)], 1, "all slices must have the same"),
        ([{"lq": make_slice()["lq"]}], 1, r"lack \['reference', 'regions', 'spacing"),
        ([make_slice() | {"regions": {}}], 1, r"lack \[\"regions\['background'\]"),
    ],
)
def test_bad_slices_are_refused(slices, batch_size, message):
    with pytest.raises(ValueError, match=message):
        measure(slices, batch_size)


def test_output_that_is_not_finite_names_the_slice():
    slices = [make_slice(seed) for seed in range(3)]

    def break_third(worst, hu):
        hu = hu[..., 0]
        return jnp.where(jnp.max(hu, axis=(1, 2), keepdims=True) == worst, jnp.nan, hu)

    make = network_output(break_third, slices[2]["lq"].max())
    with pytest.raises(FloatingPointError, match=r"slice 2: .*output.* not finite"):
        evaluate_slices(make, slices, batch_size=2, aligned=False)


def test_the_windows_are_those_of_the_metrics():
    assert set(evaluate([make_slice()])["input"]["psnr_db"]) == set(WINDOWS)
