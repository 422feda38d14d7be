"""face-api's classifier of expressions as ONNX, from the file that its authors publish.

The published file holds the weights of all layers one after another, as TensorFlow.js writes them: kernels in one byte
per weight, biases in float32; a second file has names, shapes, and step and smallest value of each kernel. The graph is
built here: four blocks of a convolution and three residual ones, depthwise separable but for the first, a mean over
7 × 7, and a linear layer. The result equals, byte by byte, the file with which the project was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

_WEIGHTS = "face_expression_model.bin"
_LAYOUT = "face_expression_model-weights_manifest.json"
_FILE = "faceapi_expression.onnx"
_SHA256 = "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d"
_CLASSES = "neutral,happy,sad,angry,fearful,disgusted,surprised"
# The name of each kind of weight, and its axes, in PyTorch.
_KINDS = {
    "filters": ("weight", (3, 2, 0, 1)),
    "depthwise_filter": ("depth.weight", (2, 3, 0, 1)),
    "pointwise_filter": ("point.weight", (3, 2, 0, 1)),
    "weights": ("weight", (1, 0)),
    "bias": ("bias", (0,)),
}
# What the file says of itself.
_FACTS = {
    "description": "FaceExpressionNet of face-api",
    "source_package": "npm @vladmandic/face-api 1.7.15",
    "source_file": f"model/{_WEIGHTS} (uint8 quantised) with its weights manifest",
    "source_sha256": _SHA256,
    "source_url": "https://github.com/vladmandic/face-api",
    "licence": "MIT, Copyright (c) Vladimir Mandic (package); trained, as its tutorial says, on public datasets and "
    "pictures scraped from the web, not named",
    "classes": _CLASSES,
    "input_size": "3x112x112",
    "input_layout": "NCHW float32",
    "colour": "RGB",
    "normalisation": "(x - (122.782, 117.001, 104.298)) / 255 on 0..255 values",
    "margin_in_source": "the detector's box (or the 68 landmarks' bounding box x 1.2), clipped to the picture, padded "
    "with black to a square",
    "margin": "square about the centre of the SCRFD box, side = 1.0 x its longer side, no alignment; outside the "
    "picture black; INTER_AREA when shrinking, else bilinear",
    "output": "probabilities (batch, 7), softmax already applied",
    "converted": "weights only, into a graph built anew; float32, opset 17, dynamic batch",
}


def convert(published: dict[str, bytes]) -> dict[str, bytes]:
    """Return the ONNX file by its name, of the contents of the published files `_WEIGHTS` and `_LAYOUT` by theirs.

    Its `input` is (batch, 3, 112, 112), RGB minus the mean over 255; its `probabilities` are (batch, 7).
    """
    from onnx import OperatorSetIdProto, TensorProto, helper

    weights = dict(_weights(published[_WEIGHTS], json.loads(published[_LAYOUT])))
    nodes, found = list[Any](), "input"
    total = found

    def add(kind: str, name: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{name}_output_0"
        nodes.append(helper.make_node(kind, list(inputs), [output], name, **dict(sorted(attributes.items()))))
        return output

    def convolve(layer: str, value: str, *, groups: int = 1, stride: int = 1) -> str:
        bias = [f"{layer}.bias"] if f"{layer}.bias" in weights else []
        side = weights[f"{layer}.weight"].shape[-1]
        # With a stride of 2, TensorFlow pads at the end only.
        pads = [0] * 4 if side == 1 else [0, 0, 1, 1] if stride == 2 else [1] * 4
        shape: dict[str, Any] = {
            "dilations": [1, 1],
            "group": groups,
            "kernel_shape": [side] * 2,
            "pads": pads,
            "strides": [stride] * 2,
        }
        name = f"/dense/{'.'.join(layer.split('.')[:2])}/{'/'.join(layer.split('.')[2:])}/Conv"
        return add("Conv", name, value, f"{layer}.weight", *bias, **shape)

    for block in range(4):
        scope = f"/dense/dense.{block}"
        for number in range(4):
            layer, stride = f"dense.{block}.conv{number}", 1 if number else 2
            if f"{layer}.weight" in weights:
                new = convolve(layer, found, stride=stride)
            else:
                groups = len(weights[f"{layer}.depth.weight"])
                new = convolve(f"{layer}.point", convolve(f"{layer}.depth", found, groups=groups, stride=stride))
            if number == 0:
                total = found = add("Relu", f"{scope}/Relu", new)
                continue
            # Each convolution is added to the sum of those before it in the block.
            total = add("Add", f"{scope}/Add{f'_{number - 1}' if number > 1 else ''}", total, new)
            found = add("Relu", f"{scope}/Relu_{number}", total)
    pool: dict[str, Any] = {
        "ceil_mode": 0,
        "count_include_pad": 1,
        "kernel_shape": [7, 7],
        "pads": [0] * 4,
        "strides": [2, 2],
    }
    found = add("Flatten", "/Flatten", add("AveragePool", "/AveragePool", found, **pool), axis=1)
    found = add("Gemm", "/fc/Gemm", found, "fc.weight", "fc.bias", alpha=1.0, beta=1.0, transB=1)
    add("Softmax", "/Softmax", found, output="probabilities", axis=1)

    sides: dict[str, list[Any]] = {"input": ["batch", 3, 112, 112], "probabilities": ["batch", 7]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()}
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, value.shape, np.ascontiguousarray(value).tobytes(), raw=True)
        for name, value in weights.items()
    ]
    graph = helper.make_graph(nodes, "main_graph", [ends["input"]], [ends["probabilities"]], tensors)
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[OperatorSetIdProto(version=17)],
        producer_name="pytorch",
        producer_version="2.13.0",
        doc_string=_FACTS["description"],
    )
    helper.set_model_props(model, _FACTS)
    return {_FILE: model.SerializeToString()}


def _weights(published: bytes, layout: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and value of every weight in the order of the file, in PyTorch's names and layouts."""
    used = 0
    for entry in (entry for group in layout for entry in group["weights"]):
        block, *inside, kind = entry["name"].split("/")
        layer = ".".join([block.replace("dense", "dense."), *inside])
        packed, count = entry.get("quantization"), math.prod(entry["shape"])
        value = np.frombuffer(published, packed["dtype"] if packed else "<f4", count, used)
        used += value.nbytes
        if packed:
            value = value.astype(np.float32) * np.float32(packed["scale"]) + np.float32(packed["min"])
        value = value.reshape(entry["shape"])
        name, axes = _KINDS[kind]
        separable = f"{block}/{'/'.join(inside)}" != "dense0/conv0" and kind == "bias" and inside
        yield f"{layer}{'.point' if separable else ''}.{name}", value.transpose(axes)
