"""Read a face recogniser's ONNX file as a frozen torch network that passes gradients to its input.

onnxruntime, which runs recognisers everywhere else, computes no gradients. Networks of the ArcFace family (residual
convolutions, one linear layer) need only the operators in `_OPERATORS`; a file with any other operator is refused.

A network with weights in one byte each, whose inputs are quantised as it runs, is computed with the same weights and
without rounding its inputs: rounding has no gradient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Values = list[Any]
Attributes = Mapping[str, Any]


class RecognitionNetwork(nn.Module):
    """Map aligned faces (B, 3, S, S), RGB in −1 … 1, to unit embeddings (B, d) float32.

    `side` is S, `digest` the sha256 (hex) of the file. The weights are buffers: they move with the module and are
    never trained. Raise ValueError for a file that is not such a network.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        import onnx
        from insightface.model_zoo import get_model
        from onnx import helper, numpy_helper

        try:
            self.digest = hashlib.sha256(file.read_bytes()).hexdigest()
            described = get_model(str(file), providers=["CPUExecutionProvider"])
            graph = onnx.load(str(file)).graph
        except Exception as error:  # whatever onnx, onnxruntime and insightface raise
            problem = (str(error).splitlines() or ["empty"])[0]
            raise ValueError(f"{file}: cannot be read as an ONNX network: {problem}") from error
        if getattr(described, "taskname", None) != "recognition":
            raise ValueError(f"{file}: not a face recognition network that insightface can read")
        self.side = int(described.input_size[0])
        if self.side % 112:
            raise ValueError(
                f"{file}: takes pictures of {self.side} px; expected a multiple of 112, for which faces are aligned"
            )
        self._mean, self._scale = float(described.input_mean), float(described.input_std)
        self._names: dict[str, str] = {}
        for tensor in graph.initializer:
            self._register(tensor.name, numpy_helper.to_array(tensor))
        self._nodes = []
        for node in graph.node:
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                self._register(node.output[0], numpy_helper.to_array(attributes["value"]))
                continue
            padded = attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
            if node.op_type not in _OPERATORS or padded:
                raise ValueError(
                    f"{file}: operator {node.op_type}{' with auto_pad' if padded else ''} cannot be differentiated "
                    f"here; known: {', '.join(sorted(_OPERATORS))}"
                )
            self._nodes.append((_OPERATORS[node.op_type], list(node.input), list(node.output), attributes))
        self._input, self._output = graph.input[0].name, graph.output[0].name

    def _register(self, name: str, value: Any) -> None:
        tensor = torch.from_numpy(value.copy())
        # A file with weights in half precision casts them back to float32 in its graph.
        buffer = self._names[name] = f"value_{len(self._names)}"
        self.register_buffer(buffer, tensor.float() if tensor.is_floating_point() else tensor)

    def forward(self, faces: Tensor) -> Tensor:
        """Return the embeddings."""
        with torch.autocast(faces.device.type, enabled=False):
            pixels = (faces.float() + 1) * 127.5
            values = {name: getattr(self, buffer) for name, buffer in self._names.items()}
            values[self._input] = (pixels - self._mean) / self._scale
            for operator, inputs, outputs, attributes in self._nodes:
                made = operator([values[name] if name else None for name in inputs], attributes)
                values.update(zip(outputs, made if isinstance(made, tuple) else (made,), strict=False))
            return F.normalize(values[self._output])


def _convolution(x: Values, at: Attributes) -> Tensor:
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    padded = F.pad(x[0], (left, right, top, bottom)) if (top, left) != (bottom, right) else x[0]
    padding = (top, left) if padded is x[0] else (0, 0)
    bias = x[2] if len(x) > 2 else None
    stride, dilation = tuple(at.get("strides", (1, 1))), tuple(at.get("dilations", (1, 1)))
    return F.conv2d(padded, x[1], bias, stride, padding, dilation, at.get("group", 1))


def _without_zero(x: Values) -> Values:
    """Return input and weights of an integer operator, its zero points subtracted, as floating-point numbers."""
    zeros = [None if zero is None else zero.float() for zero in [*x[2:], None, None][:2]]
    if zeros[1] is not None and zeros[1].dim() and x[1].dim() > 2:
        zeros[1] = zeros[1].reshape(-1, 1, 1, 1)
    return [value.float() if zero is None else value.float() - zero for value, zero in zip(x[:2], zeros, strict=True)]


def _reshape(x: Values, at: Attributes) -> Tensor:
    # In these networks, Reshape gives a bias its axes, or flattens the input of the linear layer.
    return x[0].reshape(x[1].tolist() if x[0].dim() == 1 else (len(x[0]), -1))


def _clip(x: Values, at: Attributes) -> Tensor:
    # The limits are inputs since opset 11; before, they were attributes.
    low, high = ([*x[1:], None, None] if len(x) > 1 else [at.get("min"), at.get("max")])[:2]
    return x[0].clamp(*(None if limit is None else float(limit) for limit in (low, high)))


def _linear(x: Values, at: Attributes) -> Tensor:
    left = x[0].T if at.get("transA", 0) else x[0]
    right = x[1].T if at.get("transB", 0) else x[1]
    product = at.get("alpha", 1.0) * (left @ right)
    return product if len(x) < 3 else product + at.get("beta", 1.0) * x[2]


def _batch_norm(x: Values, at: Attributes) -> Tensor:
    values, scale, bias, mean, variance = x
    return F.batch_norm(values, mean, variance, scale, bias, training=False, eps=at.get("epsilon", 1e-5))


_OPERATORS: Mapping[str, Callable[[Values, Attributes], Tensor | tuple[Tensor, ...]]] = {
    "Add": lambda x, at: x[0] + x[1],
    "BatchNormalization": _batch_norm,
    "Cast": lambda x, at: x[0],
    "Clip": _clip,
    "Conv": _convolution,
    "ConvInteger": lambda x, at: _convolution(_without_zero(x), at),
    "Div": lambda x, at: x[0] / x[1],
    # Value, scale and zero point: the value itself.
    "DynamicQuantizeLinear": lambda x, at: (x[0], x[0].new_ones(()), x[0].new_zeros(())),
    "Dropout": lambda x, at: x[0],
    "Flatten": lambda x, at: x[0].flatten(at.get("axis", 1)),
    "Gemm": _linear,
    "Identity": lambda x, at: x[0],
    "MatMul": lambda x, at: x[0] @ x[1],
    "MatMulInteger": lambda x, at: torch.matmul(*_without_zero(x)),
    "Mul": lambda x, at: x[0] * x[1],
    # ONNX stores the slopes as (C, 1, 1).
    "PRelu": lambda x, at: F.prelu(x[0], x[1].reshape(-1)),
    "Relu": lambda x, at: F.relu(x[0]),
    "Reshape": _reshape,
    "Sub": lambda x, at: x[0] - x[1],
}
