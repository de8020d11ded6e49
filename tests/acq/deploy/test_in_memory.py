import importlib.util

import numpy as np
import pytest

from acq.deploy.network_graph import integer_graph
from acq.deploy.onnx_file import onnx_model
from common.errors import UserError
from tests.acq.deploy.small_networks import images, logits, quantized, ready


def test_a_network_with_all_quantizers_is_written_without_images(tmp_path):
    quantized("own", 4).save_onnx(tmp_path / "model.onnx")
    small, batch = ready("own", 4).network, images(3)
    model = onnx_model(integer_graph(small), small.record)
    found = logits((tmp_path / "model.onnx").read_bytes(), batch)
    np.testing.assert_array_equal(found, logits(model, batch))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_images_give_missing_ranges(dtype, tmp_path):
    small, batch = quantized("own", 4, others=None), images(32)
    given = np.rint(255 * batch).astype(np.uint8) if dtype == np.uint8 else batch
    small.save_onnx(str(tmp_path / "model.onnx"), given)
    found = logits((tmp_path / "model.onnx").read_bytes(), batch)
    # Input and pooled features have 8 bits in the file and are float in the network.
    ours = np.asarray(small(batch))
    np.testing.assert_allclose(found, ours, atol=0.05 * np.ptp(ours))


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path):
    small = quantized("own", 4, others=None)
    for given, said in (
        (None, r"quant_input, quant_pooled are float.*or give images"),
        (images(2)[:, :8], r"images: got shape \(2, 8, 20, 3\)"),
        (2 * images(2), r"images: got floats from .* accepted: from 0 to 1"),
    ):
        with pytest.raises(UserError, match=said):
            small.save_onnx(tmp_path / "model.onnx", given)
    for save in (quantized("own", 4).save_onnx, small.save_packed):
        with pytest.raises(UserError, match="a folder; give the path of a file"):
            save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_command_that_installs_it_comes_first(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "onnx" else find(name),
    )
    with pytest.raises(UserError, match=r"pip install -r requirements-export\.txt"):
        quantized("own", 4, others=None).save_onnx(tmp_path / "model.onnx")
