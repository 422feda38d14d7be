"""Small ONNX networks that read faces: the mean of every channel, through one linear layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_face_network(
    file: Path,
    weights: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    size: int = 32,
    batch: str | int = "N",
    softmax: bool = False,
    layout: str = "nchw",
    classes: str | None = None,
) -> Path:
    """Save a network of (batch, channels, size, size) → means @ `weights` (channels, outputs) + `bias`."""
    channels, outputs = weights.shape
    plane = [size, size]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["linear"]),
        helper.make_node("Softmax" if softmax else "Identity", ["linear"], ["values"]),
    ]
    graph = helper.make_graph(
        nodes,
        "face",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, [batch, channels, *plane] if layout == "nchw" else [batch, *plane, channels]
            )
        ],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [batch, outputs])],
        initializer=[
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(np.zeros(outputs, np.float32) if bias is None else bias.astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if classes is not None:
        model.metadata_props.add(key="classes", value=classes)
    onnx.save(model, file)
    return file
