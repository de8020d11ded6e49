"""A browser that opens a report from the disk and does what readers do."""

import base64
import contextlib
import io
import json
import os
import shutil

import numpy as np
import PIL.Image
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_OPTIONS = (
    *("--headless=new", "--disable-gpu", "--hide-scrollbars"),
    *("--no-sandbox", "--disable-dev-shm-usage"),  # root, in a container
)
# What a page may ask for: itself, and what it carries.
_OWN = ("file:", "data:", "blob:", "about:")


def _installed(name):
    """Returns the path of a program; without it tests skip, but in CI they fail."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    return path


@contextlib.contextmanager
def started():
    options = webdriver.ChromeOptions()
    options.binary_location = _installed("chromium")
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = Service(_installed("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1280, height=800, theme="light"):
        """Opens a page whose slices are shown when this returns."""
        self.resize(width, height)
        self.emulate(theme)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=width < 500)
        self.move(0, 0)
        self.driver.get(path.as_uri())
        self.settle()

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.cdp("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)

    def emulate(self, theme, medium=""):
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.cdp("Emulation.setEmulatedMedia", media=medium, features=features)

    def cdp(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def settle(self):
        """Waits until each viewer shows the slice of its slider, and two frames."""
        self.driver.execute_async_script(
            """
            const done = arguments[0];
            const isShown = (root) => root.querySelector(".count")?.textContent
              .startsWith(`${Number(root.querySelector(".line input").value) + 1} of`);
            const shown = () =>
              [...document.querySelectorAll(".slices")].every(isShown);
            const wait = () => shown()
              ? requestAnimationFrame(() => requestAnimationFrame(done))
              : requestAnimationFrame(wait);
            requestAnimationFrame(wait);
            """
        )

    # What is on the page.

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector):
        return self.js(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((e) => e.textContent)",
            selector,
        )

    def button(self, text):
        """Returns the button that begins with a text."""
        (found,) = [b for b in self.all("button") if b.text.startswith(text)]
        return found

    def click(self, text):
        button = self.button(text)
        # Selenium would scroll it only to the edge, under the navigation.
        self.js("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        self.settle()

    def box(self, selector):
        """Returns (left, top, width, height) in the window, after scrolling there."""
        return self.js(
            "const element = document.querySelector(arguments[0]);"
            "element.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const {left, top, width, height} = element.getBoundingClientRect();"
            "return [left, top, width, height]",
            selector,
        )

    def pixels(self, canvas):
        """Returns a canvas in RGB as it is drawn, of the size of its bitmap."""
        url = self.js("return document.querySelector(arguments[0]).toDataURL()", canvas)
        return _rgb(url.split(",")[1])

    def screenshot(self):
        return _rgb(self.cdp("Page.captureScreenshot", format="png")["data"])

    def complaints(self):
        """Returns what the page wrote to the console, and what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Returns the addresses asked for since the last call, but the page's own."""
        entries = self.driver.get_log("performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert asked, "the log saw not even the page"
        return [address for address in asked if not address.startswith(_OWN)]

    # What readers do.

    def write(self, field, text):
        """Types a text in place of what a field holds."""
        self.js("arguments[0].select()", field)
        field.send_keys(text)
        self.settle()

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.cdp("Input.dispatchKeyEvent", type=kind, key=key, **text)
        self.settle()

    def move(self, x, y):
        self._mouse("mouseMoved", x, y)

    def drag(self, start, by, button="left", shift=False):
        x, y = start
        keys = 8 if shift else 0
        buttons = {"left": 1, "right": 2, "middle": 4}[button]
        self._mouse("mouseMoved", x, y)
        pressed = {"button": button, "clickCount": 1, "modifiers": keys}
        self._mouse("mousePressed", x, y, buttons=buttons, **pressed)
        for share in (0.25, 0.5, 0.75, 1):
            place = x + share * by[0], y + share * by[1]
            self._mouse("mouseMoved", *place, buttons=buttons, **pressed)
        self._mouse("mouseReleased", x + by[0], y + by[1], **pressed)
        self.settle()

    def double_click(self, x, y):
        for count in (1, 2):
            for kind in ("mousePressed", "mouseReleased"):
                self._mouse(kind, x, y, button="left", clickCount=count)
        self.settle()

    def wheel(self, x, y, turn):
        self._mouse("mouseWheel", x, y, deltaX=0, deltaY=turn)
        self.settle()

    def _mouse(self, kind, x, y, **more):
        self.cdp("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def touch(self, *steps):
        """Puts fingers down at the first step, moves them, and lifts them."""
        for i, points in enumerate(steps):
            kind = "touchMove" if i else "touchStart"
            places = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
            self.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=places)
        self.cdp("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()


def _rgb(png):
    image = PIL.Image.open(io.BytesIO(base64.b64decode(png)))
    return np.asarray(image.convert("RGB")).astype(int)
