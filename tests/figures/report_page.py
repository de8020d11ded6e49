"""The README's picture: the report of an evaluation, as Chromium shows it.

    python -m tests.figures.report_page PAGE [--output docs/report.png] [--height 1560]

PAGE is a `report.html` or `evaluation.html`. The picture is 1280 pixels wide, in the
light theme. It needs `chromium` and `chromium-driver`.
"""

import argparse
import base64
from pathlib import Path

from tests.common.report.browser import started

WIDTH = 1280


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/report.png"))
    parser.add_argument("--height", type=int, default=1560)
    options = parser.parse_args()
    with started() as browser:
        browser.open(options.page.resolve(), WIDTH)
        size = {"x": 0, "y": 0, "width": WIDTH, "height": options.height, "scale": 1}
        picture = browser.cdp(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip=size,
        )
    options.output.write_bytes(base64.b64decode(picture["data"]))


if __name__ == "__main__":
    main()
