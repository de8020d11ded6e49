import base64
import io
import re

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from common.report.html_report import curves_png, write_report


def test_a_page_holds_its_texts_and_pictures(tmp_path):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.zeros((2, 3), np.uint8)).save(buffer, "PNG")
    write_report(
        tmp_path / "report.html",
        title="a < b",
        texts={"Results": "x & y\n1 2"},
        pictures={"Curves": buffer.getvalue()},
    )
    page = (tmp_path / "report.html").read_text()
    assert "a &lt; b" in page and "x &amp; y\n1 2" in page
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(data) == buffer.getvalue()
    assert "http" not in page  # nothing to load from elsewhere


def test_curves_are_drawn_for_what_the_file_holds(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": 1.0}\n')
    drawn = PIL.Image.open(io.BytesIO(curves_png(path, ("train/loss", "val/x"))))
    empty = PIL.Image.open(io.BytesIO(curves_png(path, ("val/y", "val/x"))))
    assert drawn.size == empty.size == (1000, 300)
    blue = np.asarray(drawn.convert("RGB"))[:, :500, 2].astype(int)
    red = np.asarray(drawn.convert("RGB"))[:, :500, 0].astype(int)
    assert np.sum(blue - red > 60) > 100  # a line


def test_percentages_are_drawn_on_a_linear_axis(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(f'{{"step": {i}, "val/top1": {90 + i}, "loss": {i}}}\n' for i in (1, 2))
    )
    drawn = []

    class Seen(Figure):
        def savefig(self, *args, **kwargs):
            drawn.extend((a.get_title(), a.get_yscale()) for a in self.axes)
            super().savefig(*args, **kwargs)

    monkeypatch.setattr("common.report.html_report.Figure", Seen)
    curves_png(path, ("loss", "val/top1"), linear=("val/top1",))
    assert drawn == [("loss", "log"), ("val/top1", "linear")]
