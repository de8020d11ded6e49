import json

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.measures.evaluation import evaluate_slices
from ipv2.measures.metrics import REGIONS
from ipv2.models import create_model
from ipv2.tasks.tables import format_comparison, format_grid, format_results
from ipv2.training.denoiser import Regression, make_denoise
from ipv2.training.losses import create_loss

NOISE_HU = {"background": 20.0, "lung": 60.0, "body": 40.0}
BIAS_HU = {"background": 3.0, "lung": -12.0, "body": 6.0}
LEVEL_HU = {"background": -1000, "lung": -800, "body": 40}


def make_slice(seed=0, size=48, truth=True, lung=True):
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
        "label": (clean + 7).astype(np.int16),
        "regions": regions,
    }
    known = {"truth": clean.astype(np.int16), "spacing_mm": np.float32([0.5, 0.5])}
    return item | (known if truth else {})


def test_an_unknown_pixel_size_gives_no_millimetres():
    items = [
        make_slice(seed) | {"spacing_mm": np.float32([np.nan] * 2)} for seed in range(2)
    ]
    results = evaluate(items)
    assert results["output"]["contour_mm"] is None
    assert np.isfinite(results["output"]["psnr_db"]["full"])
    assert format_results(results).splitlines()[5].split()[-1] == "-"


def halve_noise(scale, hu):
    """A denoiser that knows the phantom: multiplies the error by `scale`."""
    clean = jnp.asarray(make_slice(size=hu.shape[2])["truth"], jnp.float32)
    return clean[None] + scale * (hu[..., 0] - clean[None])


def evaluate(slices, batch_size=2, **options):
    return evaluate_slices(
        halve_noise, 0.5, slices, batch_size=batch_size, label="ipv2", **options
    )


def assert_close(a, b, path=""):
    """Checks that trees are equal, numbers up to float32 rounding."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_close(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5), path
    else:
        assert a == b, path


@pytest.mark.slow
def test_region_metrics_against_the_truth_are_the_known_noise_and_bias():
    results = evaluate([make_slice(seed) for seed in range(3)])
    assert results["label"] == "truth"
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
def test_against_the_label_bias_is_of_the_label_and_noise_of_the_image():
    results = evaluate([make_slice(seed) for seed in range(3)])
    block = results["against_label"]
    assert block["label"] == "ipv2"
    for region in REGIONS:
        before = block["input"]["regions"][region]
        assert before["bias_hu"] == pytest.approx(BIAS_HU[region] - 7, abs=1e-2)
        # Medians over windows of 25 to 49 pixels: within a few percent.
        assert before["noise_sd_hu"] == pytest.approx(NOISE_HU[region], rel=0.1)


def test_without_truth_the_label_is_the_reference():
    with_truth = evaluate([make_slice(0), make_slice(1)])
    without = evaluate([make_slice(0, truth=False), make_slice(1, truth=False)])
    assert without["label"] == "ipv2"
    assert "against_label" not in without
    for key, value in with_truth["against_label"].items():
        assert_close(without[key], value, key)


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


def test_a_region_missing_from_slices_is_skipped_and_counted():
    one = evaluate([make_slice(0), make_slice(1, lung=False)])
    alone = evaluate([make_slice(0)])
    lung = one["input"]["regions"]["lung"]
    assert lung["n_slices"] == 1
    assert_close(lung, alone["input"]["regions"]["lung"])
    none = evaluate([make_slice(1, lung=False)])
    expected = dict.fromkeys(("bias_hu", "noise_sd_hu", "local_noise_sd_hu"))
    expected["n_slices"] = 0
    assert none["input"]["regions"]["lung"] == expected
    assert " -  " in format_results(none)


def test_results_are_plain_json_with_windows():
    results = evaluate([make_slice()])
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["windows"]["lung"] == {"center_hu": -600, "width_hu": 1500}
    assert set(results["input"]["psnr_db"]) == set(results["windows"])


def test_prepare_makes_label_and_regions_on_device():
    def prepare(batch):
        return batch | {"label": batch["gt"] + 7}

    item = make_slice()
    raw = {**item, "gt": item["truth"]}
    del raw["label"]
    assert_close(evaluate([raw], prepare=prepare), evaluate([item]))


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


def test_tables_print_windows_slices_and_numbers():
    results = evaluate([make_slice()])
    text = format_results(results, title="phantom")
    for part in ("-600/1500", "40/400", "1024/4096", "mean of 1 slices", "against"):
        assert part in text
    assert text.count("phantom") == 4
    assert f"{results['output']['psnr_db']['lung']:.2f}" in text
    compared = format_comparison({"none": results, "v2": results})
    rows = [line.split()[0] for line in compared.split("\n") if line]
    assert rows.count("none") == rows.count("v2") == rows.count("input") == 2


def test_a_grid_has_one_line_per_training_under_the_common_input():
    results = evaluate([make_slice()])
    text = format_grid(
        {"cnn10": {"v1": results, "v2": results | {"seconds": 7.4}}, "unet": {}},
        {"v1": "IPv1", "v2": "IPv2"},
    )
    lines = text.split("\n")
    assert [line.split()[0] for line in lines[-3:]] == ["(input)", "cnn10", "cnn10"]
    assert f"{results['input']['contour_mm']:.2f}" in lines[-3]
    assert "IPv1" in lines[-2] and lines[-2].endswith("-")
    assert "IPv2" in lines[-1] and lines[-1].endswith("7")


def test_runs_that_do_not_compare_are_refused():
    one = evaluate([make_slice()])
    two = evaluate([make_slice(), make_slice(1)])
    other = evaluate([make_slice(truth=False)])
    with pytest.raises(ValueError, match="n_slices is 1 for a but 2 for b"):
        format_comparison({"a": one, "b": two})
    with pytest.raises(ValueError, match="label is 'truth' for a but 'ipv2' for b"):
        format_comparison({"a": one, "b": other})
    with pytest.raises(ValueError, match="no run"):
        format_comparison({})


@pytest.mark.parametrize(
    ("slices", "batch_size", "message"),
    [
        ([], 1, "no slice to evaluate"),
        ([make_slice()], 0, "batch_size must be >= 1, got 0"),
        ([make_slice(), make_slice(truth=False)], 1, "all slices must have the same"),
        ([{"lq": make_slice()["lq"]}], 1, r"slices lack \['label', 'regions'\]"),
        ([make_slice() | {"regions": {}}], 1, r"lack \[\"regions\['background'\]"),
    ],
)
def test_bad_slices_are_refused(slices, batch_size, message):
    with pytest.raises(ValueError, match=message):
        evaluate(slices, batch_size)


def test_output_that_is_not_finite_names_the_slice():
    slices = [make_slice(seed) for seed in range(3)]

    def break_third(worst, hu):
        hu = hu[..., 0]
        return jnp.where(jnp.max(hu, axis=(1, 2), keepdims=True) == worst, jnp.nan, hu)

    with pytest.raises(FloatingPointError, match=r"slice 2: .* not finite"):
        evaluate_slices(
            break_third, slices[2]["lq"].max(), slices, batch_size=2, label="ipv2"
        )
