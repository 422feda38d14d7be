"""A recogniser loaded from ONNX computes onnxruntime's embeddings and has gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model.foundation.export import open_session
from model.foundation.manifest import WEIGHTS
from model.training.recognition_network import RecognitionNetwork

SIDE = 112
SHIPPED = WEIGHTS / "insightface/models/tiny_faces/rec.onnx"


def by_onnxruntime(file: Path, faces: torch.Tensor) -> np.ndarray:
    """Unit embeddings of faces (B, 3, S, S) in −1 … 1, one by one."""
    session = open_session(file)
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: face[None].numpy()})[0] for face in faces])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def faces(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def arcface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with what ArcFace's have: PReLU, batch normalisation, a residual, uneven padding, Gemm."""
    rng = np.random.default_rng(0)
    tensors = {
        "stem": rng.normal(0, 0.2, (4, 3, 3, 3)),
        "slope": rng.uniform(0.1, 0.4, (4, 1, 1)),
        "scale": rng.uniform(0.5, 1.5, 4),
        "shift": rng.normal(0, 0.3, 4),
        "mean": rng.normal(0, 0.3, 4),
        "variance": rng.uniform(0.5, 1.5, 4),
        "body": rng.normal(0, 0.2, (4, 4, 3, 3)),
        "head": rng.normal(0, 0.1, (8, 4 * 28 * 28)),
        "bias": rng.normal(0, 0.1, 8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], strides=[4, 4], pads=[0, 0, 1, 1]),
        helper.make_node("PRelu", ["a", "slope"], ["b"]),
        helper.make_node("BatchNormalization", ["b", "scale", "shift", "mean", "variance"], ["c"]),
        helper.make_node("Conv", ["c", "body"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "arcface",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
    )
    file = tmp_path_factory.mktemp("arcface") / "arcface.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return file


@pytest.mark.parametrize("which", ["arcface", "shipped"])
def test_embeddings_are_those_of_onnxruntime(arcface: Path, which: str) -> None:
    file = arcface if which == "arcface" else SHIPPED
    np.testing.assert_allclose(RecognitionNetwork(file)(faces()), by_onnxruntime(file, faces()), atol=1e-5)


@pytest.mark.realdata
def test_embeddings_of_a_real_network_are_those_of_onnxruntime(shared: Path) -> None:
    file = shared / "weights/judge/mobilefacenet128.onnx"
    found = RecognitionNetwork(file)(faces(1))
    np.testing.assert_allclose(found, by_onnxruntime(file, faces(1)), atol=1e-4)


def test_a_network_in_one_byte_per_weight_has_gradients(arcface: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file, picture = tmp_path / "quantised.onnx", faces()
    quantize_dynamic(arcface, file, weight_type=QuantType.QUInt8)
    assert {"ConvInteger", "DynamicQuantizeLinear"} <= {node.op_type for node in onnx.load(str(file)).graph.node}
    found = RecognitionNetwork(file)(picture.requires_grad_())
    assert float((found.detach() * torch.from_numpy(by_onnxruntime(file, picture.detach()))).sum(1).min()) > 0.99
    found[:, 0].sum().backward()
    assert float(picture.grad.abs().min(0).values.max()) > 0


@pytest.mark.realdata
def test_the_small_real_recogniser_has_gradients(shared: Path) -> None:
    file, picture = shared / "weights/insightface/models/buffalo_real_mini/w600k_mbf_int8.onnx", faces(1)
    found = RecognitionNetwork(file)(picture.requires_grad_())
    assert float((found.detach() * torch.from_numpy(by_onnxruntime(file, picture.detach()))).sum()) > 0.97
    found[0, 0].backward()
    assert float(picture.grad.abs().max()) > 0


def test_gradients_reach_the_picture_and_nothing_is_trained() -> None:
    network, picture = RecognitionNetwork(SHIPPED), faces(1).requires_grad_()
    wanted = network(faces(2)[1:]).detach()
    before = (network(picture) * wanted).sum()
    before.backward()
    assert not list(network.parameters())
    step = 0.5 * picture.grad / picture.grad.norm()
    assert float((network(picture.detach() + step) * wanted).sum()) > float(before.detach())


def test_files_without_a_differentiable_recogniser_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    for name in ("absent.onnx", "pointer.onnx"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as an ONNX network: "):
            RecognitionNetwork(tmp_path / name)
    with pytest.raises(ValueError, match="not a face recognition network"):
        RecognitionNetwork(WEIGHTS / "insightface/models/tiny_faces/det.onnx")
    with pytest.raises(ValueError, match=r"operator Shape cannot be differentiated here; known: Add"):
        RecognitionNetwork(WEIGHTS / "judges/recogniser.onnx")
