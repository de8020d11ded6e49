import importlib.util
import logging

import pytest

from acq.deploy.network_graph import integer_graph
from acq.deploy.onnx_file import onnx_model, write_onnx
from common.errors import UserError
from common.onnx.package import require_onnx
from tests.acq.deploy.small_networks import images, logits, ready


@pytest.fixture
def without_onnx(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "onnx" else find(name),
    )


def test_without_onnx_the_message_has_the_command_that_installs_it(
    without_onnx, tmp_path
):
    small = ready("own", 4).network
    for call in (
        require_onnx,
        lambda: write_onnx(integer_graph(small), small.record, tmp_path / "a.onnx"),
    ):
        with pytest.raises(UserError, match=r"pip install -r requirements-export\.txt"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_file_holds_the_model_and_is_the_same_each_time(tmp_path):
    small = ready("own", 4).network
    for name in ("a", "b"):
        write_onnx(integer_graph(small), small.record, tmp_path / f"{name}.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    model = onnx_model(integer_graph(small), small.record)
    batch = images(3)
    assert (logits(content, batch) == logits(model, batch)).all()


@pytest.mark.parametrize(("bits", "warns"), [(8, True), (4, False)])
def test_a_file_that_processors_without_vnni_compute_wrongly_warns(
    bits, warns, tmp_path, caplog
):
    small = ready("own", bits).network
    with caplog.at_level(logging.WARNING, logger="absl"):
        write_onnx(integer_graph(small), small.record, tmp_path / "model.onnx")
    said = "model.onnx: x86 processors without VNNI"
    assert (said in caplog.text) == warns
    assert ("of 4 layers wrongly (conv0" in caplog.text) == warns
