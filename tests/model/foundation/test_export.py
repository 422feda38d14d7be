import numpy as np
import onnx
import pytest
import torch
from torch import nn

from model.foundation.export import export_onnx, milliseconds, open_session
from model.foundation.layers import Residual, conv


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 16, stride=2), Residual(16), nn.Flatten(), nn.Linear(16 * 64, 10)).eval()


def write(module, file):
    """Write `module` to `file` and return it."""
    example = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    export_onnx(module, example, file, input_name="input.1", output_names=["out"], dynamic={0: "batch"})
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write(network(), tmp_path_factory.mktemp("export") / "net.onnx")


def test_the_file_computes_what_the_network_computes_in_any_batch(exported):
    module, session = network(), open_session(exported)
    assert session.get_inputs()[0].name == "input.1"
    assert [output.name for output in session.get_outputs()] == ["out"]
    for batch in (1, 5):
        pictures = torch.rand(batch, 3, 16, 16)
        got = session.run(None, {"input.1": pictures.numpy()})[0]
        assert np.allclose(got, module(pictures).detach().numpy(), atol=5e-3)


def test_the_same_weights_give_the_same_bytes_and_no_path(exported, tmp_path):
    content = exported.read_bytes()
    assert content == write(network(), tmp_path / "again.onnx").read_bytes()
    assert b".py" not in content
    assert str(exported.parent).encode() not in content


def test_weights_are_stored_in_half_precision(exported):
    large = [t for t in onnx.load(exported).graph.initializer if np.prod(t.dims) >= 256]
    assert large
    assert all(t.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64) for t in large)


def test_a_network_that_half_precision_breaks_is_refused(tmp_path):
    module = network()
    module[3].weight.data.mul_(1e8)
    with pytest.raises(ValueError, match="differs from the trained network"):
        write(module, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_time_is_measured(exported):
    assert milliseconds(exported, (1, 3, 16, 16), 5) > 0


def test_a_network_that_the_file_does_not_reproduce_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy.abs", lambda values: np.full_like(values, 9))
    with pytest.raises(ValueError, match="differs from the trained network"):
        write(network(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
