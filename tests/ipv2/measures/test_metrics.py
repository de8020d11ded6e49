import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ipv2.measures import metrics
from ipv2.measures.metrics import WINDOWS, Window

# Compiled as a whole: compiling the many small operations one by one takes seconds.
psnr_db = jax.jit(metrics.psnr_db, static_argnums=2)
ssim = jax.jit(metrics.ssim, static_argnums=2)
image_metrics = jax.jit(metrics.image_metrics)
region_metrics = jax.jit(metrics.region_metrics, static_argnums=3)
local_sd_hu = jax.jit(metrics.local_sd_hu)


def random_pair(*shape, seed=0, noise=120.0):
    """Returns smooth HU from air to bone with noise, and the same without."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(
        *(np.linspace(0, 3, n) for n in shape[-2:]), indexing="ij"
    )
    image = 900 * np.sin(rows * 2) * np.cos(columns * 3) - 200
    image = np.broadcast_to(image, shape)
    noisy = image + rng.normal(0, noise, shape)
    return jnp.asarray(noisy, jnp.float32), jnp.asarray(image)


def clipped(image, window):
    return np.clip(image, window.low_hu, window.high_hu)


def test_windows_match_a_table():
    table = {name: (w.low_hu, w.high_hu, str(w)) for name, w in WINDOWS.items()}
    assert table == {
        "lung": (-1350, 150, "-600/1500"),
        "soft_tissue": (-160, 240, "40/400"),
        "full": (-1024, 3072, "1024/4096"),
    }
    with pytest.raises(ValueError, match="width must be > 0 HU, got 0"):
        Window(center_hu=0, width_hu=0)


def test_rmse_and_psnr_match_a_table():
    reference = jnp.zeros((3, 4, 4))
    # 30 HU everywhere; 1000 HU, which the window clips to 240; equal.
    image = jnp.stack([jnp.full((4, 4), v) for v in (30.0, 1000.0, 0.0)])
    window = WINDOWS["soft_tissue"]
    np.testing.assert_allclose(metrics.rmse_hu(image, reference, window), [30, 240, 0])
    # 20 log10(400 / 30), 20 log10(400 / 240), 20 log10(400 / 0.01); float32 rounding.
    np.testing.assert_allclose(
        metrics.psnr_db(image, reference, window),
        [22.4988, 4.4370, 92.0412],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lung", (32, 32)), ("soft_tissue", (11, 40)), ("full", (29, 17))],
)
def test_psnr_and_ssim_match_scikit_image(name, shape):
    window = WINDOWS[name]
    image, reference = random_pair(*shape)
    a, b = (clipped(np.asarray(v), window) for v in (image, reference))
    np.testing.assert_allclose(
        psnr_db(image, reference, window),
        peak_signal_noise_ratio(b, a, data_range=window.width_hu),
        rtol=1e-5,  # float32
    )
    expected = structural_similarity(
        np.asarray(b - window.low_hu, np.float64),
        np.asarray(a - window.low_hu, np.float64),
        data_range=window.width_hu,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    # E[x^2] - E[x]^2 in float32 on values in [0, 1] is off by 1e-7, against the
    # stabilising constant of 9e-4.
    np.testing.assert_allclose(ssim(image, reference, window), expected, atol=1e-4)


def test_ssim_is_one_for_equal_images_and_refuses_small_ones():
    image, _ = random_pair(16, 16)
    np.testing.assert_allclose(ssim(image, image, WINDOWS["full"]), 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match="at least 11x11"):
        metrics.ssim(image[:10], image[:10], WINDOWS["full"])


@pytest.mark.slow
def test_metrics_are_the_same_batched_jitted_and_vmapped():
    image, reference = random_pair(2, 16, 16)
    mask = jnp.zeros((2, 16, 16), bool).at[:, 2:14, 2:14].set(True)

    def everything(image, reference, mask):
        return {
            "ssim": metrics.ssim(image, reference, WINDOWS["lung"]),
            "psnr_db": metrics.psnr_db(image, reference, WINDOWS["lung"]),
            "difference": metrics.difference_sd_hu(image, reference, mask),
            "local": metrics.local_sd_hu(image, mask),
        }

    eager = everything(image, reference, mask)
    vmapped = jax.jit(jax.vmap(everything))
    for other in (jax.jit(everything), vmapped):
        jax.tree.map(
            # float32 sums in another order.
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            other(image, reference, mask),
            eager,
        )


def test_region_metrics_match_numpy_on_ragged_masks():
    image, reference = random_pair(2, 20, 31, noise=40)
    mask = np.random.default_rng(1).random((2, 20, 31)) < 0.4
    result = region_metrics(image, reference, {"lung": jnp.asarray(mask)}, "difference")
    difference = [
        d[m].astype(np.float64)
        for d, m in zip(np.asarray(image - reference), mask, strict=True)
    ]
    lung = result["lung"]
    np.testing.assert_array_equal(lung["pixels"], [len(d) for d in difference])
    # float32 sums of some hundred values.
    np.testing.assert_allclose(
        lung["bias_hu"], [d.mean() for d in difference], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        lung["noise_sd_hu"], [d.std() for d in difference], rtol=1e-4
    )


@pytest.mark.slow
def test_region_metrics_keep_their_digits_on_a_whole_slice_of_bone():
    # 262,144 pixels at 3000 HU: a naive float32 sum of squares would lose the noise.
    rng = np.random.default_rng(0)
    noise = rng.normal(5, 10, (512, 512)).astype(np.float32)
    image = jnp.asarray(3000 + noise)
    reference = jnp.full((512, 512), 3000.0)
    mask = jnp.ones((512, 512), bool)
    result = region_metrics(image, reference, {"body": mask}, "difference")
    np.testing.assert_allclose(result["body"]["bias_hu"], noise.mean(), atol=1e-3)
    np.testing.assert_allclose(result["body"]["noise_sd_hu"], noise.std(), rtol=1e-4)
    local = local_sd_hu(image, mask)
    # The median deviation of samples of 49 is 1 % below the true deviation.
    np.testing.assert_allclose(local, 10, rtol=0.02)


def test_local_noise_ignores_slow_anatomy_edges_and_what_is_outside():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, (96, 96))
    rows = np.arange(96.0)[:, None]
    anatomy = 3 * rows + 800 * (np.arange(96)[None] > 60)
    mask = np.zeros((96, 96), bool)
    mask[10:90, 10:80] = True
    outside = np.where(mask, 0, 5000 * rng.random((96, 96)))
    image = jnp.asarray(anatomy + noise + outside, jnp.float32)
    # The slope of 3 HU a pixel adds 6 HU in quadrature: 20.9; the edge moves the median
    # by a little more.
    np.testing.assert_allclose(local_sd_hu(image, jnp.asarray(mask)), 21, rtol=0.06)


def test_blurred_edges_raise_the_error_but_not_the_local_noise():
    noise = np.random.default_rng(0).normal(0, 10, (64, 64))
    truth = np.where(np.arange(64) % 32 < 16, -900.0, 50.0) * np.ones((64, 1))
    blurred = (truth + np.roll(truth, 1, axis=1)) / 2 + noise
    mask = jnp.ones((64, 64), bool)
    region = region_metrics(
        jnp.asarray(blurred, jnp.float32),
        jnp.asarray(truth, jnp.float32),
        {"body": mask},
        "difference",
    )["body"]
    # One column in 16 is off by 475 HU: a deviation of 119. Windows of 7 columns cross
    # it in 7 of 16 places, so the median is that of windows without it.
    np.testing.assert_allclose(region["noise_sd_hu"], 119, rtol=0.05)
    np.testing.assert_allclose(region["local_noise_sd_hu"], 10, rtol=0.2)


def test_local_noise_matches_numpy_pixel_by_pixel():
    rng = np.random.default_rng(3)
    image = rng.normal(-800, 50, (13, 14)).astype(np.float32)
    mask = rng.random((13, 14)) < 0.7
    deviations = []
    for row, column in zip(*np.nonzero(mask), strict=True):
        near = np.s_[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
        values = image[near][mask[near]].astype(np.float64)
        if len(values) > 49 / 2:
            deviations.append(values.std(ddof=1))
    expected = sorted(deviations)[(len(deviations) - 1) // 2]
    result = local_sd_hu(jnp.asarray(image), jnp.asarray(mask))
    # float32 sums of 49 squares.
    np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_an_empty_region_is_not_a_number():
    image, reference = random_pair(12, 12)
    mask = np.zeros((12, 12), bool)
    for method in ("difference", "local"):
        region = region_metrics(image, reference, {"lung": jnp.asarray(mask)}, method)
        assert np.isnan(region["lung"]["bias_hu"])
        assert np.isnan(region["lung"]["noise_sd_hu"])
        assert region["lung"]["pixels"] == 0


def test_more_noise_lowers_every_score():
    reference = random_pair(64, 64)[1]
    results = [
        image_metrics(random_pair(64, 64, noise=n)[0], reference) for n in (10, 30, 90)
    ]
    for window in WINDOWS:
        for metric, sign in (("psnr_db", -1), ("ssim", -1), ("rmse_hu", 1)):
            values = [float(r[metric][window]) * sign for r in results]
            assert values == sorted(values), (metric, window)


def test_the_masked_median_is_the_lower_middle_of_a_sort():
    rng = np.random.default_rng(0)
    # Ties, zeros, and floats of any size.
    values = np.round(rng.exponential(2, (3, 4, 12, 9))).astype(np.float32)
    values *= np.float32(10) ** rng.integers(-30, 30, (3, 4, 1, 1))
    mask = rng.random(values.shape) < rng.random((3, 4, 1, 1))
    found = jax.jit(metrics._masked_median)(jnp.asarray(values), jnp.asarray(mask))
    for one, inside, median in zip(
        values.reshape(12, 12, 9), mask.reshape(12, 12, 9), found.ravel(), strict=True
    ):
        ordered = np.sort(one[inside])
        assert median == ordered[(len(ordered) - 1) // 2]
