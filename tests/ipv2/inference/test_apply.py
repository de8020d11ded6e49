"""The stream of slices: neighbours, batches, devices, memory."""

import jax.numpy as jnp
import numpy as np
import pytest

from ipv2.inference.apply import Applier, stacks
from ipv2.inference.tiling import Tiling

SHAPE = (7, 6, 8)
HU = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.float32)


def weigh(variables, hu):
    """Weights the slice below by 1, the slice by 10, the slice above by 100."""
    factors = 10.0 ** jnp.arange(hu.shape[-1])
    return variables["gain"] * jnp.einsum("bhwc,c->bhw", hu, factors)


def applier(channels=1, batch_size=2, tiling=None):
    return Applier(
        weigh,
        {"gain": np.float32(2)},
        channels=channels,
        batch_size=batch_size,
        tiling=tiling or Tiling(),
    )


def test_neighbours_are_those_of_the_volume_and_the_ends_repeat():
    below, above = HU[[0, 0, 1, 2, 3, 4, 5]], HU[[1, 2, 3, 4, 5, 6, 6]]
    found = np.stack(list(stacks(HU, 3)))
    np.testing.assert_array_equal(found, np.stack([below, HU, above], -1))
    np.testing.assert_array_equal(np.stack(list(stacks(HU, 1))), HU[..., None])
    one = np.stack(list(stacks(HU[:1], 5)))
    np.testing.assert_array_equal(one, np.repeat(HU[:1, ..., None], 5, -1))
    assert list(stacks([], 3)) == []


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("tiling", [Tiling(), Tiling(4, 2, 0, 1)])
def test_every_slice_comes_out_once_and_in_order(batch_size, tiling):
    out = np.stack(list(applier(3, batch_size, tiling)(iter(HU), SHAPE)))
    below, above = HU[[0, 0, 1, 2, 3, 4, 5]], HU[[1, 2, 3, 4, 5, 6, 6]]
    # float32 sums of up to 1e5.
    np.testing.assert_allclose(
        out, 2 * (below + 10 * HU + 100 * above), rtol=1e-5, atol=0.05
    )


def test_one_applier_takes_volumes_of_different_lengths_and_sizes():
    apply = applier()
    for shape in ((7, 6, 8), (1, 6, 8), (2, 5, 5)):
        hu = HU.ravel()[: np.prod(shape)].reshape(shape)
        np.testing.assert_allclose(np.stack(list(apply(hu, shape))), 2 * hu, rtol=1e-6)


def test_at_most_two_batches_are_in_memory():
    read = 0

    def slices():
        nonlocal read
        for _ in range(40):
            read += 1
            yield HU[0]

    batch = 4  # of the 4 devices that tests have
    for done, _ in enumerate(applier(3, batch)(slices(), (40, 6, 8))):
        # The finished batch, the running one, and a neighbour.
        assert read <= done + 2 * batch + 1
    assert done == 39
