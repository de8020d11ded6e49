import dataclasses
import io

import numpy as np
import PIL.Image
import pytest

from acq.report.drawings import draw_centers, draw_ranges, draw_sizes
from acq.report.layers import stored_layers
from common.report.plots import figure_svg
from tests.acq.made_up_diagnosis import make_diagnosis
from tests.acq.report.made_up_run import quantized, quantized_one_layer


def _pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return np.asarray(PIL.Image.open(buffer).convert("RGB")).astype(int)


def _texts(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize("slope", [1, -1])
def test_centers_are_drawn_where_they_are(slope):
    diagnosis = make_diagnosis()
    achieved = slope * diagnosis.requested
    figure = draw_centers(dataclasses.replace(diagnosis, achieved=achieved))
    found = _pixels(figure)
    for panel in (found[:, :250], found[:, 250:]):
        y, x = np.nonzero(panel[..., 2] - panel[..., 0] > 60)
        assert len(x) > 300
        assert np.corrcoef(x, -y)[0, 1] == pytest.approx(slope, abs=0.02)
    r2 = f"{diagnosis.center_r2(slice(0, 1)):.2f}"
    assert (r2 in figure.axes[0].get_title()) == (r2 == "1.00" and slope == 1)


@pytest.mark.parametrize("offset", [0, np.nan])
def test_centers_without_r2_are_drawn_and_said_to_be_undefined(offset):
    diagnosis = make_diagnosis()
    requested = np.zeros_like(diagnosis.requested)
    achieved = offset + diagnosis.achieved
    unmeasured = {"requested": requested, "achieved": achieved}
    figure = draw_centers(dataclasses.replace(diagnosis, **unmeasured))
    assert figure.axes[0].get_title() == "x: R² undefined"
    assert figure_svg(figure).startswith("<svg")


def test_ranges_are_drawn_as_they_are():
    layers = stored_layers(quantized(other_bits=8))
    weights, values = draw_ranges(layers).axes
    assert _texts(weights) == ["conv  4 bits", "fc  8 bits"]
    assert _texts(values) == ["input  8 bits", "act  3 bits"]
    # The first line is 0; then all channels and the median of each layer.
    spans = [line.get_xdata() for line in weights.get_lines()[1:]]
    expected = [(-1.2, 1.6), (-0.75, 1.0), (-1.27, 1.28), (-1.27, 1.28)]
    np.testing.assert_allclose(spans, expected, rtol=1e-5)
    spans = [line.get_xdata() for line in values.get_lines()[1:]]
    np.testing.assert_allclose(spans, [(-2.0, 3.1), (0, 3.5)], rtol=1e-5)
    # From top to bottom.
    assert weights.get_ylim()[0] > weights.get_ylim()[1]


def test_sizes_are_drawn_as_they_are():
    (axes,) = draw_sizes(stored_layers(quantized())).axes
    found = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert found == {
        "float32": [0.432, 0.08],
        "one byte a code": [0.108, 0.02],
        "packed": [0.054, 0.02],
    }


def test_one_layer_without_activations_is_drawn():
    layers = stored_layers(quantized_one_layer())
    for draw in (draw_ranges, draw_sizes):
        assert "fc  8 bits" in figure_svg(draw(layers))
