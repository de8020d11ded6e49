"""The file as it is written; `test_in_browser.py` opens it."""

import base64
import dataclasses
import html.parser
import json
import math
import re
import zlib

import numpy as np
import pytest

from common.report.hu_images import packed
from common.report.page import LARGEST, write_page
from common.report.parts import (
    Column,
    Estimate,
    Measure,
    Picture,
    Plot,
    Report,
    Section,
    Table,
    Text,
    ViewedSlice,
    Viewer,
)
from tests.common.report.example_report import example_report

SIDE = 24  # of the example's slices
NASTY = "</script><script>alert(1)</script><b a=\"x\" b='y'>&amp;"
SVG = '<?xml version="1.0"?>\n<svg viewBox="0 0 1 1"><text>7</text></svg>\n'


class _Elements(html.parser.HTMLParser):
    """Collects elements as (tag, attributes, own text), with closed ones last."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.all = [], []
        self.feed(page)
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.all.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop()[0] == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def of(self, tag, kind=None):
        return [
            (attributes, text)
            for name, attributes, text in self.all
            if name == tag and kind in (None, attributes.get("class"))
        ]

    def texts(self, tag, kind=None):
        return [text for _, text in self.of(tag, kind)]


def _written(tmp_path, report, **options):
    path = tmp_path / "report.html"
    write_page(path, report, **options)
    return path.read_text(encoding="utf-8")


def _report(*parts, glossary=(), headline=None, **texts):
    return Report(
        title=texts.get("title", "A run"),
        verdict=texts.get("verdict", "It ran."),
        facts=texts.get("facts", {}),
        headline=headline or Table("Numbers", [Column("a")], []),
        sections=[Section(texts.get("section", "All"), parts)],
        glossary=glossary,
        warnings=texts.get("warnings", ()),
    )


def _slice(name="one", shape=(2, 3), **kept):
    image = np.arange(math.prod(shape), dtype=np.int16).reshape(shape)
    return ViewedSlice(name, "worst", {"input": image, "label": -image}, **kept)


def _noisy_slice(number):
    rng = np.random.default_rng(number)
    image = rng.integers(-1000, 1000, (64, 64)).astype(np.int16)
    return ViewedSlice(f"slice {number}", "best", {"input": image})


def _unpacked(text, shape):
    """Decodes as `hu_images.py` says, pixel by pixel in whole numbers of Python."""
    planes = zlib.decompress(base64.b64decode(text, validate=True), wbits=-15)
    size = math.prod(shape)
    assert len(planes) == 2 * size
    image = np.zeros(shape, np.int64)
    for i, (y, x) in enumerate(np.ndindex(shape)):
        folded = planes[i] + 256 * planes[size + i]
        difference = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        if x and y:
            predicted = (image[y, x - 1] + image[y - 1, x]) // 2
        else:
            predicted = image[y, x - 1] if x else image[y - 1, x] if y else 0
        image[y, x] = (predicted + difference + 32768) % 65536 - 32768
    return image


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (13, 9)])
def test_images_are_packed_without_loss(shape):
    rng = np.random.default_rng(0)
    extremes = rng.choice(np.array([-32768, -1, 0, 1, 32767], np.int16), shape)
    noise = rng.integers(-32768, 32768, shape).astype(np.int16)
    constant = np.full(shape, -1024, np.int16)
    for image in (extremes, noise, constant, np.asfortranarray(noise)):
        np.testing.assert_array_equal(_unpacked(packed(image), shape), image)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"no pixel: its shape is \(0, 5\)"):
        packed(np.zeros((0, 5), np.int16))


def test_noise_of_a_scan_takes_little_more_than_its_entropy():
    noise = np.random.default_rng(0).normal(0, 20, (256, 256))
    image = np.rint(noise).astype(np.int16)
    entropy = math.log2(20 * math.sqrt(2 * math.pi * math.e))
    # The prediction adds the noise of a mean of two: log2(sqrt(1.5)) = 0.3 bits.
    assert len(packed(image)) * 6 / image.size < 1.1 * (entropy + 0.3)


def test_the_page_holds_all_parts_in_order(tmp_path):
    report = example_report(SIDE)
    elements = _Elements(_written(tmp_path, report))
    assert elements.texts("h1") == [report.title]
    assert elements.texts("p", "verdict") == [report.verdict]
    assert elements.texts("li")[: len(report.warnings)] == list(report.warnings)
    facts = dict(zip(elements.texts("dt"), elements.texts("dd"), strict=False))
    assert dict(list(facts.items())[: len(report.facts)]) == report.facts
    titles = [section.title for section in report.sections]
    assert elements.texts("h2") == [report.headline.title, *titles, "Glossary"]
    parts = [p for s in report.sections for p in s.parts if not isinstance(p, Text)]
    assert elements.texts("h3") == [part.title for part in parts]
    assert elements.texts("summary") == ["The config"]
    assert len(elements.of("svg")) == 2
    assert [kind["class"] for kind, _ in elements.of("figure")] == [
        *("table", "viewer", "table", "plot", "plot"),
    ]
    anchors = {attributes.get("id") for _, attributes, _ in elements.all}
    for attributes, _ in elements.of("a"):
        assert attributes["href"].removeprefix("#") in anchors


def test_the_page_loads_nothing(tmp_path):
    page = _written(tmp_path, example_report(SIDE))
    elements = _Elements(page)
    ((policy, _),) = [m for m in elements.of("meta") if "http-equiv" in m[0]]
    assert policy["content"].startswith("default-src 'none'; ")
    for _, attributes, _ in elements.all:
        for name in ("src", "href", "data", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), f"{name}={value}"
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest", page)


def test_the_viewer_gets_the_pixels(tmp_path):
    report = example_report(SIDE)
    elements = _Elements(_written(tmp_path, report))
    ((_, index),) = elements.of("script", "index")
    data = iter(elements.texts("script", "image"))
    viewer = report.sections[0].parts[0]
    for said, viewed in zip(json.loads(index), viewer.slices, strict=True):
        assert said["name"] == viewed.name and said["role"] == viewed.role
        assert said["pixelMm"] == 0.7 and said["reference"] == "truth"
        assert [image["name"] for image in said["images"]] == list(viewed.images)
        assert said["images"][0]["facts"] == viewed.facts["input"]
        assert said["images"][-1]["facts"] == ""
        for image in viewed.images.values():
            shape = said["height"], said["width"]
            np.testing.assert_array_equal(_unpacked(next(data), shape), image)
    assert not list(data)


@pytest.mark.slow
def test_the_same_report_gives_the_same_bytes(tmp_path):
    paths = tmp_path / "one.html", tmp_path / "two.html"
    for path in paths:
        write_page(path, example_report(SIDE))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_texts_are_no_html(tmp_path):
    image = np.zeros((2, 2), np.int16)
    viewed = ViewedSlice(NASTY, NASTY, {NASTY: image}, NASTY, None, {NASTY: NASTY})
    table = Table(NASTY, [Column(NASTY, NASTY)], [[NASTY], ["x"]], NASTY)
    report = _report(
        table,
        Viewer(NASTY, [viewed], NASTY),
        Plot(NASTY, SVG, NASTY),
        Picture(NASTY, b"png", NASTY),
        Text(NASTY, "\n" + NASTY),
        glossary=[Measure(NASTY, NASTY, NASTY)],
        headline=table,
        title=NASTY,
        verdict=NASTY,
        facts={NASTY: NASTY},
        warnings=[NASTY],
        section=NASTY,
    )
    page = _written(tmp_path, report)
    plain = _Elements(page.replace(html.escape(NASTY), "x"))
    elements = _Elements(page)
    assert [e[0] for e in elements.all] == [e[0] for e in plain.all]
    assert len(elements.of("script")) == 4 and not elements.of("b")
    for tag in ("title", "h1", "h3", "summary", "dt"):
        assert set(elements.texts(tag)) == {NASTY}
    assert elements.texts("p", "verdict") == [NASTY]
    assert elements.texts("pre") == ["\n\n" + NASTY]  # browsers drop the first end
    ((_, index),) = elements.of("script", "index")
    (said,) = json.loads(index)
    assert said["name"] == said["images"][0]["facts"] == NASTY


def test_cells_show_rounded_numbers_and_keep_all_digits(tmp_path):
    rows = [
        ["a", 2 / 3, Estimate(1.25, 0.5, 2.0, 8), 12345],
        ["b", None, Estimate(-3.0, None, None, 8), -1],
        ["c", math.nan, Estimate(math.nan, 1.0, 2.0, 8), None],
        ["d", math.inf, Estimate(1.0, math.nan, 2.0, 8), 0],
    ]
    columns = [Column("x"), Column("y", digits=3), Column("z", digits=1), Column("n")]
    page = _written(tmp_path, _report(Table("T", columns, rows, "Read on.")))
    body = page.split("<tbody>")[2].split("</tbody>")[0]
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", body)
    shown = [re.sub(r"<[^>]+>", "", cell) for cell in cells]
    assert shown == [
        *("a", "0.667", "1.2 (0.5 to 2.0)", "12345"),
        *("b", "-", "-3.0", "-1"),
        *("c", "-", "-", "-"),
        *("d", "∞", "1.0", "0"),
    ]
    values = re.findall(r'data-value="([^"]*)"', body)
    assert values == [
        *(repr(2 / 3), "1.25", "12345"),
        *("", "-3.0", "-1"),
        *("", "", ""),
        *("Infinity", "1.0", "0"),
    ]
    assert body.count('data-low="0.5" data-high="2.0" data-n="8"') == 1
    assert 'title="n = 8"' in body and 'title="not defined"' in body
    note = "Read on. In brackets: the 95 % interval of the mean; n = 8."
    assert note in _Elements(page).texts("p", "note")


def test_different_numbers_of_values_stand_in_the_cells(tmp_path):
    rows = [[Estimate(1.0, 0.0, 2.0, 8)], [Estimate(1.0, 0.0, 2.0, 9)]]
    elements = _Elements(_written(tmp_path, _report(Table("T", [Column("x")], rows))))
    assert elements.texts("small") == ["n 8", "n 9"]
    notes = elements.texts("p", "note")
    assert notes == ["In brackets: the 95 % interval of the mean."]


def test_numbers_stand_right_and_texts_left(tmp_path):
    columns = [Column("text"), Column("number"), Column("undefined")]
    rows = [["a", 1.0, None], ["b", 2, None]]
    elements = _Elements(_written(tmp_path, _report(Table("T", columns, rows))))
    heads = [a.get("class") for a, _ in elements.of("th") if a["scope"] == "col"][1:]
    assert heads == [None, "number", "number"]
    assert [a["class"] for a, _ in elements.of("td") if a["class"] != "empty"] == [
        "number"
    ] * 4


def test_titles_and_cells_link_to_their_measures(tmp_path):
    glossary = [Measure("PSNR", "In dB.", "High."), Measure("a <b>", "It.", "Low.")]
    table = Table("T", [Column("Name"), Column("of the input", "PSNR")], [["a <b>", 1]])
    page = _written(tmp_path, _report(table, glossary=glossary))
    elements = _Elements(page)
    assert elements.of("a", "measure") == [
        (
            dict(href="#measure-1", title="In dB.") | {"class": "measure"},
            "of the input",
        ),
        (dict(href="#measure-2", title="It.") | {"class": "measure"}, "a <b>"),
    ]
    place = page[page.index('id="measure-2"') :]
    assert "<dd>It.</dd><dd>Low.</dd>" in place[: place.index("</div>")]


def test_an_empty_table_says_so(tmp_path):
    page = _written(tmp_path, _report(Table("T", [Column("a"), Column("b")], [])))
    assert '<td colspan="2" class="empty">no rows</td>' in page


def test_a_page_without_slices_facts_or_measures_is_whole(tmp_path):
    elements = _Elements(_written(tmp_path, _report(Viewer("Slices", []))))
    assert elements.texts("p", "note") == ["There is no slice to show."]
    assert not elements.of("script", "index") and not elements.of("ul", "warnings")


def test_a_picture_is_carried_whole(tmp_path):
    page = _written(tmp_path, _report(Picture("Samples", b"\x89PNG\xff", "Five.")))
    ((image, _),) = _Elements(page).of("img")
    assert image["alt"] == "Samples"
    assert base64.b64decode(image["src"].split(",")[1]) == b"\x89PNG\xff"


def test_a_plot_comes_without_the_declaration_of_a_file(tmp_path):
    page = _written(tmp_path, _report(Plot("P", SVG)))
    assert (
        '<div class="scroll"><svg viewBox="0 0 1 1"><text>7</text></svg></div>' in page
    )
    assert "<?xml" not in page


def _fitting(tmp_path, caplog, largest, *viewers):
    caplog.clear()
    page = _written(tmp_path, _report(*viewers), largest=largest)
    kept = [json.loads(index) for index in _Elements(page).texts("script", "index")]
    return page, [[said["name"] for said in index] for index in kept], caplog.text


def test_the_last_slices_are_left_out_of_a_large_page(tmp_path, caplog):
    slices = [_noisy_slice(number) for number in range(4)]
    whole, kept, said = _fitting(tmp_path, caplog, LARGEST, Viewer("V", slices))
    assert kept == [["slice 0", "slice 1", "slice 2", "slice 3"]] and not said
    size = len(whole.encode())
    _, kept, said = _fitting(tmp_path, caplog, size, Viewer("V", slices))
    assert len(kept[0]) == 4 and not said
    page, kept, said = _fitting(tmp_path, caplog, size - 1, Viewer("V", slices))
    assert kept == [["slice 0", "slice 1", "slice 2"]]
    assert "slice 3 (best)" in said and "'V'" in said and str(tmp_path) in said
    note = "Left out, because the page would be too large: slice 3 (best)."
    assert note in _Elements(page).texts("p", "note")


def test_all_that_is_left_out_is_said_in_order(tmp_path, caplog):
    slices = [_noisy_slice(number) for number in range(4)]
    one = len(packed(slices[0].images["input"]))
    whole = len(_written(tmp_path, _report(Viewer("V", slices))).encode())
    page, kept, said = _fitting(tmp_path, caplog, whole - 2 * one, Viewer("V", slices))
    names = [f"slice {number} (best)" for number in range(len(kept[0]), 4)]
    assert 1 <= len(kept[0]) <= 2
    assert f": {', '.join(names)}." in page and ", ".join(names) in said
    assert len(page.encode()) <= whole - 2 * one


def test_the_larger_viewer_loses_slices_first(tmp_path, caplog):
    few = Viewer("Few", [_noisy_slice(9)])
    many = Viewer("Many", [_noisy_slice(number) for number in range(3)])
    whole, _, _ = _fitting(tmp_path, caplog, LARGEST, many, few)
    _, kept, _ = _fitting(tmp_path, caplog, len(whole.encode()) - 1, many, few)
    assert kept == [["slice 0", "slice 1"], ["slice 9"]]


def test_a_page_too_large_without_slices_is_written_and_said(tmp_path, caplog):
    page, kept, said = _fitting(tmp_path, caplog, 1000, Viewer("V", [_slice()]))
    assert not kept and "too large without slices" in said
    assert "There is no slice to show." in page and "one (worst)" in page


def test_pages_are_under_15_megabytes():
    assert LARGEST == 15_000_000


def test_a_measure_that_is_not_explained_is_refused(tmp_path):
    table = Table("T", [Column("PSNR", "PSNR")], [])
    with pytest.raises(
        ValueError, match="glossary lacks the measure 'PSNR'; it has d'"
    ):
        _written(tmp_path, _report(table, glossary=[Measure("d'", "", "")]))
    assert not list(tmp_path.iterdir())


def test_a_measure_explained_twice_is_refused(tmp_path):
    glossary = [Measure("PSNR", "a", "b"), Measure("PSNR", "c", "d")]
    with pytest.raises(ValueError, match="explains PSNR more than once"):
        _written(tmp_path, _report(glossary=glossary))


@pytest.mark.parametrize("svg", ["", "a.svg", "<svg>", "<svg><script>x</script></svg>"])
def test_a_plot_that_is_no_svg_is_refused(tmp_path, svg):
    with pytest.raises(
        ValueError, match=r"plot 'P': got .* accepted: the text of an SVG"
    ):
        _written(tmp_path, _report(Plot("P", svg)))


def test_slices_of_other_sizes_or_names_are_refused(tmp_path):
    good = _slice()
    other = {**good.images, "truth": np.zeros((3, 3), np.int16)}
    for change, said in (
        ({"images": {}}, r"sizes \[\]"),
        ({"images": other}, r"sizes \[\(2, 3\), \(3, 3\)\], accepted: images of one"),
        ({"reference": "truth"}, "for truth, accepted: input, label"),
        ({"facts": {"truth": "x"}}, "for truth, accepted: input, label"),
    ):
        viewed = dataclasses.replace(good, **change)
        with pytest.raises(ValueError, match=f"slice 'one': .*{said}"):
            _written(tmp_path, _report(Viewer("V", [viewed])))
