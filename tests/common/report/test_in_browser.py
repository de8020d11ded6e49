"""The page in headless Chromium, as readers use it."""

import base64
import dataclasses
import re

import numpy as np
import PIL.Image
import pytest
from PIL.Image import BOX

from common.report.page import write_page
from common.report.parts import (
    Column,
    Estimate,
    Report,
    Section,
    Table,
    ViewedSlice,
    Viewer,
)
from tests.common.report.browser import started
from tests.common.report.example_report import METHODS, example_report

pytestmark = pytest.mark.slow

SCREENS = [(1280, 800), (390, 844)]
THEMES = ["light", "dark"]
NASTY = '</script><script>hacked = 1</script><img src=x onerror="hacked = 1">'


@pytest.fixture(scope="module")
def browser():
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def report():
    return example_report()


@pytest.fixture(scope="module")
def path(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(path, report)
    return path


@pytest.fixture
def page(browser, path):
    """The example on a wide light screen; it loads nothing and complains of nothing."""
    browser.open(path)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == []


@pytest.fixture
def phone(browser, path):
    browser.open(path, 390, 844)
    yield browser
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def images(report):
    return report.sections[0].parts[0].slices[0].images


def _opened(browser, tmp_path, *parts):
    headline = Table("Numbers", [Column("a")], [])
    report = Report("A run", "It ran.", {}, headline, [Section("All", parts)], [])
    write_page(tmp_path / "own.html", report)
    browser.open(tmp_path / "own.html")


# --- The viewer. ----------------------------------------------------------------------


def _canvas(number):
    """Returns the selector of a panel's canvas; panels count from 1."""
    return f".panel:nth-child({number}) canvas"


def _window(page):
    return [int(e.get_property("value")) for e in page.all(".fields input")]


def _point(page, u, v, canvas=None):
    """Returns where a share of a canvas is on the screen, in whole pixels."""
    left, top, width, height = page.box(canvas or _canvas(1))
    return round(left + u * width), round(top + v * height)


def _numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-"))]


def _pixel(page):
    """Returns the (x, y) that the readout names."""
    (text,) = page.texts(".readout")
    return tuple(int(n) for n in _numbers(text)[:2])


def _values(page):
    return [int(_numbers(text)[0]) for text in page.texts(".panel .value")]


def _zoom(page):
    return float(_numbers(page.texts(".readout")[0])[-1])


def _in_window(hu, centre, width):
    share = (np.asarray(hu, float) - centre + width / 2) / width
    return np.floor(255 * np.clip(share, 0, 1) + 0.5)


def _snapshots(page):
    return [page.pixels(_canvas(n + 1)) for n in range(len(METHODS))]


def test_panels_show_the_images_in_the_lung_window(page, images):
    assert page.texts(".panel .name") == list(METHODS)
    assert page.texts(".slice-title b") == ["phantom, slice 41"]
    assert page.texts(".slice-title .badge") == ["worst"]
    assert "512 × 512 pixels of 0.7 mm" in page.texts(".slice-title")[0]
    facts = page.texts(".panel .facts")
    assert facts[0] == "PSNR 24.1 dB, SSIM 0.71" and len(facts) == 4
    assert page.texts(".panel:nth-child(5) .badge") == ["reference"]
    assert _window(page) == [-600, 1500]
    for name, shown in zip(METHODS, _snapshots(page), strict=True):
        grey = PIL.Image.fromarray(
            _in_window(images[name], -600, 1500).astype(np.uint8)
        )
        # The panel is smaller than the image; so are both, to compare them, and smooth.
        seen = PIL.Image.fromarray(shown[..., 0].astype(np.uint8))
        both = [np.asarray(i.resize((40, 40), BOX)).astype(int) for i in (grey, seen)]
        assert np.abs(both[0] - both[1]).max() < 25  # at sharp edges
        assert np.abs(both[0] - both[1]).mean() < 2


def test_pixels_are_exact_where_they_are_enlarged(browser, tmp_path):
    image = np.array([[-700, -600, 150], [151, -1350, 3000]], np.int16)
    _opened(browser, tmp_path, Viewer("V", [ViewedSlice("s", "", {"a": image})]))
    shown = browser.pixels(_canvas(1))
    height, width, _ = shown.shape
    assert width / height == pytest.approx(3 / 2, abs=0.01)
    for (y, x), hu in np.ndenumerate(image):
        block = shown[y * height // 2 : (y + 1) * height // 2, x * width // 3 :]
        inner = block[3:-3, 3 : width // 3 - 3]
        assert np.unique(inner).tolist() == [_in_window(hu, -600, 1500)]


def test_extremes_of_16_bits_arrive(browser, tmp_path):
    rng = np.random.default_rng(0)
    extremes = rng.choice(np.array([-32768, -1, 0, 255, 256, 32767], np.int16), (4, 3))
    noise = rng.integers(-32768, 32768, (4, 3)).astype(np.int16)
    constant = np.full((4, 3), -1024, np.int16)
    images = {"extremes": extremes, "noise": noise, "constant": constant}
    viewed = ViewedSlice("s", "", images, reference="noise")
    _opened(browser, tmp_path, Viewer("V", [viewed]))
    browser.click("Difference")
    for y, x in np.ndindex(4, 3):
        browser.move(*_point(browser, (x + 0.5) / 3, (y + 0.5) / 4))
        assert _pixel(browser) == (x, y)
        assert _values(browser) == [image[y, x] for image in images.values()]
        change = int(extremes[y, x]) - int(noise[y, x])
        assert _numbers(browser.texts(".panel .value")[0])[1] == change
    assert browser.complaints() == []


def test_the_cursor_shows_the_value_in_each_image(page, images):
    seen = []

    def check(u, v):
        page.move(*_point(page, u, v))
        x, y = _pixel(page)
        assert _values(page) == [image[y, x] for image in images.values()]
        millimetres = _numbers(page.texts(".readout")[0].split(" · ")[1])
        assert millimetres == pytest.approx(
            [0.7 * (x + 0.5), 0.7 * (y + 0.5)], abs=0.051
        )
        seen.extend(_values(page))
        return x, y

    places = [(0.5, 0.72), (0.3, 0.45), (0.1, 0.1), (0.93, 0.51), (0.57, 0.44)]
    left, top, width, height = page.box(_canvas(1))
    for u, v in places:
        x, y = _point(page, u, v)
        expected = int(512 * (x - left) / width), int(512 * (y - top) / height)
        assert check(u, v) == expected
    assert min(seen) < -800 and max(seen) > 255
    for turn in (-200, -200, -200):
        page.wheel(*_point(page, 0.3, 0.4), turn)
    page.drag(_point(page, 0.5, 0.5), (-60, 40), button="right")
    assert _zoom(page) > 4
    for u, v in places:
        check(u, v)
        # What is drawn under the pointer is that pixel.
        shown = page.pixels(_canvas(1))
        row, column = int(v * shown.shape[0]), int(u * shown.shape[1])
        grey = _in_window(_values(page)[0], -600, 1500)
        around = shown[row - 2 : row + 3, column - 2 : column + 3, 0]
        assert grey in around
    page.move(5, 5)
    assert page.texts(".panel .value") == [""] * 5


@pytest.mark.parametrize("size", SCREENS)
def test_nothing_moves_with_what_the_pointer_shows(browser, path, size):
    browser.open(path, *size)
    for canvas in (_canvas(1), _canvas(4), ".wipe canvas"):
        if "wipe" in canvas:
            browser.click("Wipe")
        before = browser.box(canvas)
        browser.move(*_point(browser, 0.5, 0.5, canvas))
        assert len(_pixel(browser)) == 2
        assert browser.box(canvas) == before


def test_a_drag_changes_the_window(page):
    before = _snapshots(page)
    page.drag(_point(page, 0.5, 0.5), (40, 0))
    assert _window(page) == [-600, 1700]  # 5 HU a pixel at a width of 1500
    page.drag(_point(page, 0.5, 0.5), (0, -30))
    centre, width = _window(page)
    assert centre == round(-600 + 30 * 1700 / 300) and width == 1700
    for old, new in zip(before, _snapshots(page), strict=True):
        assert (old != new).mean() > 0.2
    assert not page.all('.joined button[aria-pressed="true"]')
    page.drag(_point(page, 0.5, 0.5), (-900, 0))
    assert _window(page) == [centre, 1]  # never 0


def test_presets_by_buttons_and_keys(page, images):
    presets = {"Lung": [-600, 1500], "Mediastinum": [40, 400], "Bone": [400, 1800]}
    for name, window in reversed(presets.items()):
        page.click(name)
        assert _window(page) == window
        (pressed,) = page.all('.joined button[aria-pressed="true"]')
        assert pressed.text.startswith(name)
        shown = page.pixels(_canvas(5)).mean()
        expected = _in_window(images["truth"], *window).mean()
        assert shown == pytest.approx(expected, abs=2)
    page.move(*_point(page, 0.5, 0.5))
    for key, window in (("2", [40, 400]), ("3", [400, 1800]), ("1", [-600, 1500])):
        page.press(key)
        assert _window(page) == window


def test_the_window_is_set_by_numbers(page):
    centre, width = page.all(".fields input")
    page.write(centre, "100\n")
    page.write(width, "0\n")
    assert _window(page) == [100, 1]  # a width is at least 1
    page.write(width, "2d3w1\n")  # the digits go to the field, the letters nowhere
    assert _window(page) == [100, 231]
    assert page.button("Wipe").get_attribute("aria-pressed") == "false"
    shown = page.pixels(_canvas(5))
    assert set(np.unique(shown)) >= {0, 255}


def test_zoom_and_pan_are_locked_across_panels(page, images):
    start = _point(page, 0.3, 0.4)
    page.move(*start)
    fixed = _pixel(page)
    before = _snapshots(page)
    for turn in (-200, -200, -200, -200):
        page.wheel(*start, turn)
    assert _zoom(page) == pytest.approx(np.exp(2), abs=0.1)
    assert _pixel(page) == fixed
    for button, shift in (("right", False), ("middle", False), ("left", True)):
        page.drag(start, (25, 15), button=button, shift=shift)
        # The pixel went along with the pointer.
        assert np.abs(np.subtract(_pixel(page), fixed)).max() <= 1
        page.drag((start[0] + 25, start[1] + 15), (-25, -15), button="right")
    assert _window(page) == [-600, 1500]
    for number, name in enumerate(METHODS, start=1):
        # All panels show the same pixel at the same place.
        page.move(*_point(page, 0.3, 0.4, _canvas(number)))
        assert np.abs(np.subtract(_pixel(page), fixed)).max() <= 1
        shown = page.pixels(_canvas(number))
        assert (shown != before[number - 1]).mean() > 0.1
        x, y = _pixel(page)
        grey = _in_window(images[name][y, x], -600, 1500)
        row, column = int(0.4 * shown.shape[0]), int(0.3 * shown.shape[1])
        assert grey in shown[row - 2 : row + 3, column - 2 : column + 3, 0]
    for _ in range(20):
        page.press("+")
    assert _zoom(page) == 64
    page.drag(_point(page, 0.5, 0.5), (50, 0))
    page.double_click(*_point(page, 0.5, 0.5))
    assert _zoom(page) == 1 and _window(page) == [-600, 1500]
    for old, new in zip(before, _snapshots(page), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_images_always_fill_the_panels(page):
    page.press("x")  # stands for nothing
    start = _point(page, 0.5, 0.5)
    page.wheel(*start, -200)
    page.drag(start, (300, 300), button="right")
    left, top, width, height = page.box(_canvas(1))
    page.move(left + 0.4, top + 0.4)
    assert _pixel(page) == (0, 0)
    page.move(*_point(page, 0.9, 0.9))
    for _ in range(3):
        page.press("-")
    assert _zoom(page) == 1
    page.move(left + width - 0.4, top + height - 0.4)
    assert _pixel(page) == (511, 511)


def test_the_wheel_scrolls_the_page_where_it_cannot_zoom_out(page):
    start = _point(page, 0.5, 0.5)
    before = page.js("return scrollY")
    page.wheel(*start, 120)
    page.driver.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.js("return scrollY") > before and _zoom(page) == 1


def test_the_difference_replaces_all_images_but_the_reference(page, images):
    before = _snapshots(page)
    page.move(*_point(page, 0.4, 0.5))
    page.press("d")
    assert page.button("Difference").get_attribute("aria-pressed") == "true"
    shown = page.texts(".scale")
    visible = [scale.is_displayed() for scale in page.all(".panel .scale")]
    assert visible == [True] * 4 + [False]
    assert shown[:4] == ["−100+100 HU"] * 4
    after = _snapshots(page)
    np.testing.assert_array_equal(after[4], before[4])
    for number, name in enumerate(METHODS[:-1]):
        assert (after[number] != before[number]).any(axis=2).mean() > 0.9
        x, y = _pixel(page)
        hu, change = _numbers(page.texts(".panel .value")[number])
        assert hu == images[name][y, x]
        assert change == int(images[name][y, x]) - int(images["truth"][y, x])
    (field,) = page.all('input[aria-label^="Range"]')
    page.write(field, "20\n")
    assert page.texts(".scale")[0] == "−20+20 HU"
    assert page.pixels(_canvas(2)).mean() > after[1].mean()  # stronger colours
    page.click("Difference")
    for old, new in zip(before, _snapshots(page), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_colours_of_differences(browser, tmp_path):
    image = np.array([[0, 50, 100, 1000, -50, -100]], np.int16)
    both = {"a": image, "zero": np.zeros_like(image)}
    viewed = ViewedSlice("s", "", both, reference="zero")
    _opened(browser, tmp_path, Viewer("V", [viewed]))
    browser.click("Difference")
    shown = browser.pixels(_canvas(1))
    middles = [int((i + 0.5) * shown.shape[1] / 6) for i in range(6)]
    zero, half, full, beyond, below, far = shown[shown.shape[0] // 2, middles].tolist()
    assert max(zero) < 25 and full == beyond
    assert half[0] > half[2] and below[2] > below[0]  # orange above, blue below
    assert sum(zero) < sum(half) < sum(full) and sum(below) < sum(far)
    scale = browser.js(
        "return getComputedStyle(document.querySelector('.scale i')).backgroundImage"
    )
    colours = [
        [int(n) for n in c] for c in re.findall(r"\((\d+), (\d+), (\d+)\)", scale)
    ]
    assert colours == [far, below, zero, half, full]


def test_a_slice_without_a_reference_has_no_difference(browser, tmp_path):
    image = np.zeros((4, 4), np.int16)
    _opened(browser, tmp_path, Viewer("V", [ViewedSlice("s", "", {"a": image})]))
    assert not browser.button("Difference").is_enabled()
    before = browser.pixels(_canvas(1))
    browser.move(*_point(browser, 0.5, 0.5))
    browser.press("d")
    np.testing.assert_array_equal(browser.pixels(_canvas(1)), before)
    assert _values(browser) == [0]
    assert not browser.all(".line input")[0].is_enabled()  # a single slice
    assert browser.texts(".count") == ["1 of 1"]


def test_the_wipe_shows_two_images(page, images):
    page.move(*_point(page, 0.5, 0.5))
    page.press("w")
    canvas = ".wipe canvas"
    assert [e.is_displayed() for e in page.all(".panels, .wipe")] == [False, True]
    left, right = page.all(".wipe select")
    assert [o.text for o in left.find_elements("css selector", "option")] == [*METHODS]
    assert left.get_property("value") == "input"
    assert right.get_property("value") == "truth"
    first = page.pixels(canvas)
    width = first.shape[1]

    def changed(new):
        columns = np.flatnonzero((first != new).any(axis=(0, 2)))
        return (columns.min() / width, columns.max() / width) if columns.size else None

    page.drag(_point(page, 0.5, 0.3, canvas), (0.25 * page.box(canvas)[2], 0))
    start, end = changed(page.pixels(canvas))
    assert start == pytest.approx(0.5, abs=0.01) and end == pytest.approx(
        0.75, abs=0.01
    )
    assert _window(page) == [-600, 1500]
    (slider,) = page.all(".wipe > .field input")
    assert float(slider.get_property("value")) == pytest.approx(75, abs=0.5)
    slider.send_keys("\ue011")  # home: the divider is at the left end
    page.settle()
    start, end = changed(page.pixels(canvas))
    assert start < 0.01 and end == pytest.approx(0.5, abs=0.01)
    # All is the right image now.
    right.send_keys("BM3D")
    page.settle()
    expected = _in_window(images["BM3D"], -600, 1500).mean()
    assert page.pixels(canvas).mean() == pytest.approx(expected, abs=1)
    page.move(*_point(page, 0.6, 0.4, canvas))
    x, y = _pixel(page)
    values = [_numbers(text)[0] for text in page.texts(".side .value")]
    assert values == [images["input"][y, x], images["BM3D"][y, x]]
    page.drag(_point(page, 0.6, 0.4, canvas), (20, 0))
    assert _window(page)[1] > 1500
    page.press("w")
    assert [e.is_displayed() for e in page.all(".panels, .wipe")] == [True, False]


def test_the_chosen_images_of_the_wipe_stay_in_the_next_slice(page):
    page.click("Wipe")
    page.all(".wipe select")[1].send_keys("label")
    page.click("›")
    assert [s.get_property("value") for s in page.all(".wipe select")] == [
        *("input", "label"),
    ]


def test_slices_by_slider_keys_and_buttons(page, report):
    slices = report.sections[0].parts[0].slices
    before = page.pixels(_canvas(5))
    (slider,) = page.all(".line input")
    page.move(*_point(page, 0.5, 0.5))
    page.press("2")  # the window stays from slice to slice

    def check(number):
        assert page.texts(".slice-title b") == [slices[number].name]
        assert page.texts(".slice-title .badge") == [slices[number].role]
        assert page.texts(".count") == [f"{number + 1} of 3"]
        assert slider.get_property("value") == str(number)
        assert _window(page) == [40, 400]
        page.move(*_point(page, 0.44, 0.4))
        x, y = _pixel(page)
        assert _values(page) == [i[y, x] for i in slices[number].images.values()]

    check(0)
    page.press("ArrowRight")
    check(1)
    assert (page.pixels(_canvas(5)) != before).any()
    page.press("ArrowRight")
    page.press("ArrowRight")  # there is no fourth
    check(2)
    page.press("ArrowLeft")
    check(1)
    page.click("‹")
    check(0)
    assert not page.button("‹").is_enabled() and page.button("›").is_enabled()
    page.move(5, 5)
    slider.send_keys("\ue014")  # the right arrow
    page.settle()
    check(1)


def test_keys_work_only_at_the_viewer(page):
    page.move(5, 5)
    for key in ("2", "d", "w", "ArrowRight"):
        page.press(key)
    assert _window(page) == [-600, 1500]
    assert page.texts(".count") == ["1 of 3"]
    assert not page.all('[aria-pressed="true"]:not(.joined *)')
    page.drag(_point(page, 0.5, 0.5), (0, 0))
    page.move(5, 5)
    page.press("2")  # a click gave the viewer the focus
    assert _window(page) == [40, 400]


def test_two_viewers_are_apart(browser, tmp_path):
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    two = [Viewer(t, [ViewedSlice(t, "", {"a": image})]) for t in ("One", "Two")]
    _opened(browser, tmp_path, *two)
    browser.drag(_point(browser, 0.5, 0.5), (0, 0))  # the first has the focus
    canvas = "section > figure:nth-of-type(2) canvas"
    browser.move(*_point(browser, 0.5, 0.5, canvas))
    browser.press("3")
    assert _window(browser) == [-600, 1500, 400, 1800]


def test_fingers(phone):
    x, y = _point(phone, 0.5, 0.5)
    before = phone.pixels(_canvas(1))
    phone.touch([(x, y)], [(x + 10, y)], [(x + 20, y - 4)])
    assert _window(phone) == [-580, 1600]
    assert (phone.pixels(_canvas(1)) != before).any()
    assert _values(phone)  # of the pixel under the finger
    phone.touch(
        [(x - 20, y), (x + 20, y)],
        [(x - 30, y), (x + 30, y)],
        [(x - 40, y), (x + 40, y)],
    )
    assert _zoom(phone) == pytest.approx(2, abs=0.1)
    assert _window(phone) == [-580, 1600]
    seen = phone.pixels(_canvas(1))
    phone.touch(
        [(x - 20, y), (x + 20, y)],
        [(x - 5, y + 15), (x + 35, y + 15)],
    )
    assert (phone.pixels(_canvas(1)) != seen).any()
    assert _zoom(phone) == pytest.approx(2, abs=0.1)
    phone.touch([(x, y)])
    phone.touch([(x, y)])
    assert _zoom(phone) == 1 and _window(phone) == [-600, 1500]


def test_a_finger_drags_the_divider(phone):
    phone.click("Wipe")
    x, y = _point(phone, 0.5, 0.5, ".wipe canvas")
    phone.touch([(x + 10, y)], [(x + 50, y)], [(x + 80, y)])
    (slider,) = phone.all(".wipe > .field input")
    assert float(slider.get_property("value")) > 65
    assert _window(phone) == [-600, 1500]


def test_every_control_has_a_name_and_does_not_leave_the_page(page):
    page.click("Wipe")
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, select, summary')]"
        ".filter((e) => !(e.ariaLabel || e.textContent.trim() || "
        "e.labels?.[0]?.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert page.js("return document.querySelectorAll('.slices button').length") == 8


# --- Tables, links and the rest of the page. ------------------------------------------


TABLE = Table(
    "Layers",
    [Column("Layer"), Column("Error"), Column("Mean")],
    [
        ["conv10", 3.0, Estimate(2.0, 1.0, 3.0, 4)],
        ["conv2", None, Estimate(10.0, 9.0, 11.0, 4)],
        ["Bias", -1.5, None],
        ["act", 20.25, Estimate(-1.0, None, None, 4)],
    ],
)


def _names(browser):
    return browser.texts("section tbody th")


def test_tables_sort(browser, tmp_path):
    _opened(browser, tmp_path, TABLE)
    layer, error, mean = browser.all("section button.sort")
    written = ["conv10", "conv2", "Bias", "act"]
    assert _names(browser) == written
    layer.click()
    assert _names(browser) == ["act", "Bias", "conv2", "conv10"]
    layer.click()
    assert _names(browser) == ["conv10", "conv2", "Bias", "act"]
    error.click()
    assert _names(browser) == ["Bias", "conv10", "act", "conv2"]
    error.send_keys("\ue007")  # enter
    assert _names(browser) == ["act", "conv10", "Bias", "conv2"]  # None is last
    states = [h.get_attribute("aria-sort") for h in browser.all("section thead th")]
    assert states == ["none", "descending", "none"]
    error.send_keys("\ue007")
    assert _names(browser) == written
    mean.click()
    assert _names(browser) == ["act", "conv10", "conv2", "Bias"]
    browser.all("section thead .title")[1].click()
    assert _names(browser) == ["Bias", "conv10", "act", "conv2"]
    assert browser.complaints() == []


def test_a_table_is_copied_with_all_digits(browser, tmp_path):
    _opened(browser, tmp_path, dataclasses.replace(TABLE, rows=[*TABLE.rows[:3]]))
    browser.cdp(
        "Browser.grantPermissions",
        permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
    )
    browser.all("section button.copy")[0].click()
    copied = browser.driver.execute_async_script(
        "const done = arguments[0];"
        "setTimeout(() => navigator.clipboard.readText().then(done, done), 100)"
    )
    assert copied == (
        "Layer\tError\tMean\tMean, low\tMean, high\tMean, n\n"
        "conv10\t3.0\t2.0\t1.0\t3.0\t4\n"
        "conv2\t\t10.0\t9.0\t11.0\t4\n"
        "Bias\t-1.5\t\t\t\t\n"
    )
    assert browser.texts("section button.copy") == ["Copied"]


def test_titles_lead_to_the_glossary_without_sorting(page):
    link = page.all("header thead a")[1]
    assert link.text == "SSIM" and "Structural" in link.get_attribute("title")
    link.click()
    assert page.js("return location.hash") == "#measure-2"
    place, height = page.js(
        "const box = document.querySelector(':target').getBoundingClientRect();"
        "return [box.top, innerHeight]"
    )
    assert 0 < place < height
    assert {h.get_attribute("aria-sort") for h in page.all("thead th")} == {"none"}


def test_the_first_screen_holds_the_facts_and_the_headline(page):
    bottom = page.js(
        "return document.querySelector('header .note').getBoundingClientRect().bottom"
    )
    assert 0 < bottom <= 800
    assert page.js("return scrollY") == 0


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SCREENS)
def test_nothing_is_wider_than_the_screen_or_blank(browser, path, size, theme):
    browser.open(path, *size, theme)
    for mode in ("Wipe", "Difference", "Keys"):
        summary = browser.all(".help summary")[0]
        summary.click() if mode == "Keys" else browser.click(mode)
        wide = browser.js("return document.scrollingElement.scrollWidth")
        assert wide <= size[0]
    browser.click("Wipe")
    browser.js("scrollTo(0, 0)")
    first = browser.screenshot()
    browser.box(_canvas(1))
    second = browser.screenshot()
    for shot in (first, second):
        background = shot[0, 0] if shot is first else shot[-1, 0]
        assert (background.min() > 250) if theme == "light" else (background.max() < 40)
        assert (np.abs(shot - background).max(axis=2) > 60).mean() > 0.01
    assert second.std() > 20  # an image is in it
    assert browser.complaints() == []


CONTRASTS = """
const canvas = document.createElement('canvas')
  .getContext('2d', {willReadFrequently: true});
const over = (colours) => {
  for (const colour of ['#fff', ...colours]) {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
  }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255).map(
    (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parents = (e) => (e ? [...parents(e.parentElement), e] : []);
return [...document.querySelectorAll('body *')].filter((e) =>
  [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) &&
  e.checkVisibility() && !e.matches(':disabled, script, .off-screen, noscript'),
).map((e) => {
  const line = parents(e);
  const behind = over(line.map((p) => getComputedStyle(p).backgroundColor));
  const opacity = line.reduce((o, p) => o * Number(getComputedStyle(p).opacity), 1);
  const style = getComputedStyle(e);
  const ink = over([e.closest('svg') ? style.fill : style.color]);
  const seen = ink.map((v, i) => opacity * v + (1 - opacity) * behind[i]);
  const name = `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`;
  const [a, b] = [light(seen), light(behind)].sort((x, y) => y - x);
  return [(a + 0.05) / (b + 0.05), name];
});
"""


@pytest.mark.parametrize("theme", THEMES)
def test_texts_stand_out_from_what_is_behind_them(browser, path, theme):
    browser.open(path, theme=theme)
    browser.js("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    browser.click("Difference")
    found = browser.js(CONTRASTS)
    assert len(found) > 200
    assert [text for contrast, text in found if contrast < 4.5] == []
    ink, behind = browser.js(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    brightness = [sum(_numbers(colour)[:3]) for colour in (ink, behind)]
    assert (brightness[0] > brightness[1]) == (theme == "dark")


def test_a_button_changes_the_theme(page):
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = page.js(colour)
    page.click("Dark")
    dark = page.js(colour)
    assert sum(_numbers(dark)) < 120 < sum(_numbers(light))
    page.click("Light")
    assert page.js(colour) == light
    page.emulate("dark")
    assert page.js(colour) == light  # the reader chose


def test_the_page_prints_light_with_its_panels(browser, path):
    browser.open(path, theme="dark")
    pdf = base64.b64decode(browser.cdp("Page.printToPDF")["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= pages <= 8
    assert len(re.findall(rb"/Subtype\s*/Image\b", pdf)) >= 5  # a panel each
    browser.emulate("dark", "print")
    hidden = ("nav", ".bar", ".help", "button.copy", "button.sort", ".line input")
    for selector in hidden:
        assert not browser.all(selector)[0].is_displayed(), selector
    for selector in (
        ".slice-title",
        ".print-only",
        _canvas(5),
        ".plot svg",
        "#glossary",
    ):
        assert browser.all(selector)[0].is_displayed(), selector
    assert browser.texts(".print-only") == ["Window: centre −600, width 1500 HU"]
    behind = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert _numbers(behind)[:3] == [255, 255, 255]
    assert browser.complaints() == []


def test_texts_of_data_do_nothing(browser, tmp_path):
    image = np.zeros((2, 2), np.int16)
    viewed = ViewedSlice(NASTY, NASTY, {NASTY: image}, NASTY, None, {NASTY: NASTY})
    table = Table(NASTY, [Column(NASTY)], [[NASTY]], NASTY)
    _opened(browser, tmp_path, Viewer(NASTY, [viewed], NASTY), table)
    browser.click("Wipe")
    browser.driver.execute_async_script("setTimeout(arguments[0], 100)")
    assert browser.js("return typeof hacked") == "undefined"
    assert browser.all("img") == []
    for selector in (".slice-title b", ".panel .name", ".panel .facts", "tbody th"):
        assert browser.texts(selector) == [NASTY]
    assert browser.complaints() == [] and browser.requests() == []


def test_images_that_cannot_be_unpacked_are_said(browser, tmp_path):
    image = np.zeros((2, 2), np.int16)
    _opened(browser, tmp_path, Viewer("V", [ViewedSlice("s", "", {"a": image})]))
    page = (tmp_path / "own.html").read_text()
    broken = re.sub(r'(base64">).*?(</script>)', r"\1AAAA\2", page)
    assert broken != page
    (tmp_path / "broken.html").write_text(broken)
    browser.driver.get((tmp_path / "broken.html").as_uri())
    browser.driver.execute_async_script("setTimeout(arguments[0], 200)")
    (problem,) = browser.all(".problem")
    assert problem.is_displayed() and "cannot unpack" in problem.text
