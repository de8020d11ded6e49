import jax
import numpy as np
import pytest

from ipv2.models import FLOWS, MODELS
from tests.ipv2.models.small import create_small, random_image, random_variables

torch_denoisers = pytest.importorskip(
    "tests.oracles.torch_denoisers", reason="needs torch", exc_type=ImportError
)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - FLOWS))
def test_network_computes_what_plain_pytorch_does(name):
    model = create_small(name, channels=3)
    # RED-CNN is published for images that its convolutions do not use up.
    x = random_image(2, 26, 23, 3)
    variables = random_variables(model, x)
    twin = torch_denoisers.create_twin(model, variables)
    expected = torch_denoisers.from_torch(twin(torch_denoisers.to_torch(x)))
    y = jax.jit(model.apply)(variables, x)
    assert np.std(y - x[..., 1:2]) > 0.05
    # A dozen layers of float32 sums in other orders, outputs of order 1.
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_batchnorm_learns_the_statistics_that_pytorch_learns():
    model = create_small("dncnn")
    x = random_image(4, 12, 11, 1)
    variables = random_variables(model, x)
    twin = torch_denoisers.create_twin(model, variables).train()
    expected = torch_denoisers.from_torch(twin(torch_denoisers.to_torch(x)))
    y, updated = jax.jit(
        lambda variables, x: model.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
    )(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    ours, theirs = updated["batch_stats"]["layer3"]["norm"], twin.layer3.norm
    np.testing.assert_allclose(ours["mean"], theirs.running_mean, rtol=0, atol=1e-5)
    # PyTorch keeps the unbiased variance of the 4 * 12 * 11 values.
    batch = (
        theirs.running_var.numpy()
        - 0.9 * variables["batch_stats"]["layer3"]["norm"]["var"]
    ) * (1 - 1 / 528)
    expected = 0.9 * variables["batch_stats"]["layer3"]["norm"]["var"] + batch
    np.testing.assert_allclose(ours["var"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_published_forms_have_the_published_counts():
    with torch_denoisers.torch.device("meta"):
        for name, count in (("NAFNet", 29_159_715), ("Restormer", 26_126_644)):
            model = MODELS[name.lower()](channels=3)
            twin = getattr(torch_denoisers, name)(model, out_channels=3)
            assert sum(weight.numel() for weight in twin.parameters()) == count
