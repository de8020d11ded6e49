import numpy as np
import pytest

from common.onnx.sizes import (
    DependsOnSizeError,
    Differing,
    Sizes,
    Varying,
    difference,
    is_less,
    merged,
    product,
)

SIZES = Sizes(unit=4, least=8)


def seen(side):
    """Returns a side as the traces see it, by height and width in pixels."""
    return Varying(side(h, w) for h, w in SIZES.pixels)


@pytest.mark.parametrize(
    ("side", "factors"),
    [
        (lambda h, w: h, (0, 4, 0, 0)),
        (lambda h, w: w // 4 + 3, (3, 0, 1, 0)),
        (lambda h, w: 2 * h + w - 5, (-5, 8, 4, 0)),
        (lambda h, w: (h // 2) * (w + 1), (0, 2, 0, 8)),
    ],
)
def test_sides_are_found_again_from_height_and_width(side, factors):
    a, b, c, d = SIZES.factors(seen(side))
    assert (a, b, c, d) == factors
    for h, w in ((400, 512), (32, 1000)):
        p, q = h // 4, w // 4
        assert a + b * p + c * q + d * p * q == side(h, w)


def test_a_side_of_another_form_is_refused():
    with pytest.raises(DependsOnSizeError, match="nor grows with height and width"):
        SIZES.factors(seen(lambda h, w: h**2))


def test_numbers_that_are_the_same_everywhere_become_one():
    h, w = seen(lambda h, w: h), seen(lambda h, w: w)
    assert difference(seen(lambda h, w: h + 3), h) == 3
    assert product((h, w)) == seen(lambda h, w: h * w)
    assert product((17, 3)) == 51 and product(()) == 1
    assert is_less(h, product((h, 2))) and not is_less(h, h)


def test_what_traces_have_in_common_is_merged():
    array = np.arange(3)
    assert merged([(1, "a", None), (2, "a", None)]) == (Varying((1, 2)), "a", None)
    assert merged([array, array.copy()]) is array
    assert isinstance(merged([array, array + 1]), Differing)
    assert merged([np.zeros((0, 4)), np.zeros((0, 5))]).size == 0
    for found in (("a", "b"), ((1, 2), (1, 2, 3)), (array, 4)):
        with pytest.raises(DependsOnSizeError, match="an operation has"):
            merged(found)
