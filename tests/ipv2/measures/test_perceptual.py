"""Tests of ipv2.measures.perceptual."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ipv2.measures import perceptual
from ipv2.measures.metrics import WINDOWS, Window
from tests.oracles import perceptual as oracle
from tests.oracles.thorax import thorax

perceptual_metrics = jax.jit(perceptual.perceptual_metrics)
vif_ldct_benchmark = jax.jit(perceptual.vif_ldct_benchmark)
mae_hu = jax.jit(perceptual.mae_hu, static_argnums=2)
ORACLES = {"gmsd": oracle.gmsd, "ms_ssim": oracle.ms_ssim, "vif": oracle.vifp}
# Float32 against float64. VIF takes variances as differences of squares of up to 127
# levels, off by 0.002, against an observer's 2.
TOLERANCES = {"gmsd": 1e-6, "ms_ssim": 1e-6, "vif": 2e-4}


def _pair(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """A blurred thorax in noise, and the thorax, cut to a shape."""
    truth = thorax(max(shape)).hu[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    image = ndimage.gaussian_filter(truth, 0.8) + 40 * noise.astype(np.float32)
    return image.astype(np.float32), truth


def _levels(image: np.ndarray, window: Window) -> np.ndarray:
    """The image in the window's grey levels of 0 to 255."""
    clipped = np.clip(image.astype(np.float64), window.low_hu, window.high_hu)
    return 255 * (clipped - window.low_hu) / window.width_hu


@pytest.mark.slow
def test_numbers_are_those_of_public_packages():
    # GMSD of piq 0.8.0; MS-SSIM of pytorch-msssim 1.0.0; VIF of sewar 0.4.10; on this
    # pair in float64, mapped to [0, 1], VIF to [0, 255].
    published = {
        "gmsd": {"lung": 0.117871, "soft_tissue": 0.259871, "full": 0.0348166},
        "ms_ssim": {"lung": 0.956738, "soft_tissue": 0.874160, "full": 0.988314},
        "vif": {"lung": 0.414061, "soft_tissue": 0.180038, "full": 0.519857},
    }
    image, truth = map(jnp.asarray, _pair(192, 192))
    found = perceptual_metrics(image, truth)
    for name, by_window in published.items():
        values = {window: float(value) for window, value in found[name].items()}
        # Six digits.
        tolerance = max(TOLERANCES[name], 1e-6)
        assert values == pytest.approx(by_window, abs=tolerance), name
    # sewar's, on HU + 1024 from 0 to 2924.
    assert float(vif_ldct_benchmark(image, truth)) == pytest.approx(0.291137, abs=2e-4)


# 161 is the least, and odd at every scale.
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(161, 203)])
def test_numbers_are_those_of_the_authors_code(shape):
    image, truth = _pair(*shape)
    found = perceptual_metrics(jnp.asarray(image), jnp.asarray(truth))
    for window, one in WINDOWS.items():
        levels = (_levels(image, one), _levels(truth, one))
        for name, expected in ORACLES.items():
            assert float(found[name][window]) == pytest.approx(
                expected(*levels), abs=TOLERANCES[name]
            ), (name, window)


def test_mae_matches_a_table():
    reference = jnp.zeros((3, 4, 4))
    # Half of the pixels by 30 HU; 1000 HU, which the window clips to 240; equal.
    half = jnp.zeros((4, 4)).at[:2].set(-30)
    image = jnp.stack([half, jnp.full((4, 4), 1000.0), jnp.zeros((4, 4))])
    np.testing.assert_array_equal(
        mae_hu(image, reference, WINDOWS["soft_tissue"]), [15, 240, 0]
    )


def test_equal_images_have_the_best_numbers():
    truth = jnp.asarray(_pair(192, 192)[1])
    found = perceptual_metrics(truth, truth)
    best = {"mae_hu": 0, "gmsd": 0, "ms_ssim": 1, "vif": 1}
    assert float(found.pop("vif_ldct_benchmark")) == pytest.approx(1, abs=1e-5)
    for name, by_window in found.items():
        for value in by_window.values():
            assert float(value) == pytest.approx(best[name], abs=1e-5), name


@pytest.mark.slow
def test_vif_sees_contrast_and_lost_information():
    _, truth = _pair(96, 96)
    window = Window(center_hu=0, width_hu=8000)
    vif = jax.jit(lambda image: perceptual.vif(image, jnp.asarray(truth), window))
    assert float(vif(1.5 * truth)) > 1.05
    # Where nothing is left, only rounding is.
    assert float(vif(jnp.zeros_like(truth))) < 1e-3


@pytest.mark.slow
def test_a_batch_has_the_numbers_of_its_slices():
    image, truth = map(jnp.asarray, _pair(192, 192))
    pair = jnp.stack([image, truth]), jnp.stack([truth, truth])
    batched = perceptual_metrics(*pair)
    single = perceptual_metrics(image, truth)
    for found, expected in zip(
        jax.tree.leaves(batched), jax.tree.leaves(single), strict=True
    ):
        assert found.shape == (2,) and found.dtype == np.float32
        assert float(found[0]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_small_images_have_no_ms_ssim_or_vif():
    image, truth = map(jnp.asarray, _pair(160, 160))
    found = perceptual_metrics(image, truth)
    assert np.isnan([float(v) for v in found["ms_ssim"].values()]).all()
    assert np.isfinite([float(v) for v in found["vif"].values()]).all()
    window = WINDOWS["full"]
    for function, least in (
        (perceptual.ms_ssim, 161),
        (perceptual.vif, 41),
        (perceptual.gmsd, 6),
    ):
        small = image[: least - 1]
        with pytest.raises(ValueError, match=f"at least {least}x{least}"):
            function(small, small, window)


@pytest.mark.slow
def test_vif_of_a_constant_reference_is_not_a_number():
    flat = jnp.full((48, 48), -1000.0)
    noisy = flat + 30 * jax.random.normal(jax.random.key(0), flat.shape)
    vif = jax.jit(perceptual.vif, static_argnums=2)
    assert np.isnan(float(vif(noisy, flat, WINDOWS["soft_tissue"])))
