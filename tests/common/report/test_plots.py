import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from common.report.plots import COLOURS, curves, figure_svg


def _figure(values=(1.0, 2.0), title="a < b & c"):
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, marker="o", color=COLOURS[0], label="loss")
    axes.set_title(title)
    axes.legend()
    return figure


def _ids(svg):
    return {
        element.get("id"): ET.tostring(element)
        for element in ET.fromstring(svg).iter()
        if element.get("id")
    }


def test_a_figure_gives_the_same_text_each_time():
    assert figure_svg(_figure()) == figure_svg(_figure())


def test_text_stays_text():
    found = [
        "".join(element.itertext())
        for element in ET.fromstring(figure_svg(_figure())).iter()
        if element.tag.endswith("}text")
    ]
    assert {"a < b & c", "loss"} <= set(found)


def test_the_element_stands_alone_and_has_no_date():
    svg = figure_svg(_figure())
    assert svg.startswith("<svg ")
    assert svg.count("http") == 1  # the name of SVG itself
    assert "<metadata" not in svg and "date" not in svg.lower()
    assert "<style" not in svg and "xlink" not in svg
    references = re.findall(r'(?:href="|url\()([^")]*)', svg)
    assert references
    assert {reference.lstrip("#") for reference in references} <= set(_ids(svg))


def test_black_has_the_colour_of_the_pages_text_and_nothing_is_white():
    svg = figure_svg(_figure())
    assert "#000000" not in svg and "#ffffff" not in svg.lower()
    assert 'fill="currentColor"' in svg and "stroke: currentColor" in svg
    assert COLOURS[0].lower() in svg


def test_two_figures_on_a_page_share_no_id_of_different_things():
    first, second = _ids(figure_svg(_figure())), _ids(figure_svg(_figure((2.0, 5.0))))
    assert first and second
    assert not first.keys() & second.keys()
    assert len(first) == len(re.findall(r'\bid="', figure_svg(_figure())))


def _luminance(colour):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_legible_on_both_pages(colour, page):
    light, dark = sorted((_luminance(colour), _luminance(page)), reverse=True)
    # WCAG 2.2, 1.4.11: graphics need a contrast of 3.
    assert round((light + 0.05) / (dark + 0.05), 1) >= 3


def _metrics(folder, lines):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_curves_are_drawn_for_what_the_file_holds(tmp_path):
    path = _metrics(tmp_path, [{"step": i, "train/loss": 1 / i} for i in (1, 2, 3)])
    svg = curves(path, ("train/loss", "val/x"))
    assert svg.count(COLOURS[0].lower()) == 1
    assert "train/loss" in svg and "val/x" in svg and svg.count("no values") == 1


def test_a_single_value_is_drawn(tmp_path):
    svg = curves(_metrics(tmp_path, [{"step": 5, "a": 3.0}]), ("a",))
    # A line of one point has no length: a marker shows it.
    assert re.search(rf"<use [^>]*fill: {COLOURS[0]}", svg, re.IGNORECASE)


def test_percentages_are_drawn_on_a_linear_axis(tmp_path, monkeypatch):
    path = _metrics(
        tmp_path, [{"step": i, "val/top1": 90 + i, "loss": i} for i in (1, 2)]
    )
    drawn = []

    class Seen(Figure):
        def savefig(self, *args, **kwargs):
            drawn.extend((a.get_title(), a.get_yscale()) for a in self.axes)
            super().savefig(*args, **kwargs)

    monkeypatch.setattr("common.report.plots.Figure", Seen)
    curves(path, ("loss", "val/top1"), linear=("val/top1",))
    assert drawn == [("loss", "log"), ("val/top1", "linear")]


def test_values_that_are_not_positive_are_on_a_linear_axis(tmp_path):
    path = _metrics(tmp_path, [{"step": i, "loss": float(i)} for i in (0, 1)])
    assert "10^" not in curves(path, ("loss",))
