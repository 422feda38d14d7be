"""Networks are batched only where a batch does not change their outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipelines.core.errors import UserError
from pipelines.data.faces.networks import BATCH, Batches, open_network


def _network(file: Path, *, batch: str | int = "N", leaks: bool = False) -> Path:
    """Write y = W · flatten(x), (N, 3, 4, 4) → (N, 5); with `leaks` divided by the greatest |x| of the whole batch."""
    weights = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    if leaks:
        nodes = [
            helper.make_node("Abs", ["x"], ["size"]),
            helper.make_node("ReduceMax", ["size"], ["most"], keepdims=0),
            helper.make_node("Div", ["x", "most"], ["scaled"]),
            helper.make_node("Flatten", ["scaled"], ["flat"]),
            nodes[1],
        ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def _inputs(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).normal(size=(count, 3, 4, 4)).astype(np.float32))


@pytest.mark.parametrize(("leaks", "batch", "size"), [(False, "N", BATCH), (True, "N", 1), (False, 1, 1)])
def test_outputs_do_not_depend_on_the_batch(tmp_path: Path, leaks: bool, batch: str | int, size: int) -> None:
    batches = Batches(open_network(_network(tmp_path / "n.onnx", batch=batch, leaks=leaks), "test"))
    assert batches.size == size
    inputs = _inputs(BATCH + 3)
    together = batches.run(inputs)
    assert together.shape == (BATCH + 3, 5)
    for index in (0, 5, BATCH, BATCH + 2):
        assert (batches.run([inputs[index]])[0] == together[index]).all()
    assert (batches.run(inputs[::-1])[::-1] == together).all()


def test_a_missing_or_broken_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"some\.key = .*none\.onnx: no such file"):
        open_network(tmp_path / "none.onnx", "some.key")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match=r"some\.key = .*text\.onnx: no ONNX network"):
        open_network(tmp_path / "text.onnx", "some.key")
