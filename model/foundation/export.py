"""ONNX export of trained networks; the same weights always give the same bytes.

Weights are stored in half precision and cast back when the file is loaded (onnxruntime folds the casts), so that files
are small and the arithmetic stays float32. Metadata about the exporting machine is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.processors import session_options

OPSET = 18


def export_onnx(
    module: nn.Module,
    example: Tensor,
    file: Path,
    *,
    input_name: str,
    output_names: Sequence[str],
    dynamic: dict[int, str],
    half: bool = True,
) -> None:
    """Write `module` to `file`. `dynamic` names the input's axes of variable size (in `example` not of size 1).

    Raises ValueError where an output of `file` differs from the module's by 2 % of the largest value or more.
    """
    import onnx

    module = module.eval()
    axes = {axis: torch.export.Dim(name, min=1) for axis, name in dynamic.items()}
    program = torch.onnx.export(
        module,
        (example,),
        input_names=[input_name],
        output_names=list(output_names),
        dynamic_shapes=(axes or None,),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
        optimize=True,
    )
    assert program is not None
    model = program.model_proto
    _clean(model)
    if half:
        _store_half(model)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        _compare(module, example, temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def export_rows(module: nn.Module, side: int, outputs: Sequence[str], file: Path) -> None:
    """Write a network to `file`: input (B, 3, side, side) in [-1, 1] with any B, outputs named `outputs`."""
    example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    export_onnx(module, example, file, input_name="input", output_names=outputs, dynamic={0: "batch"})


def _clean(model: Any) -> None:
    """Remove metadata that depends on the exporting machine: names, versions and source positions."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    del model.functions[:]
    model.producer_name, model.producer_version, model.doc_string = "dynamicid", "", ""
    graph.name, graph.doc_string = "network", ""
    for number, node in enumerate(graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
        # insightface guesses the normalisation from node names that begin with Sub and Mul.
        node.name = f"n{number}_{node.op_type}"
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def _store_half(model: Any) -> None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = model.graph, []
    for number, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < 256:
            continue
        name, half_name = tensor.name, f"{tensor.name}_half"
        values = numpy_helper.to_array(tensor).astype(np.float16)
        graph.initializer[number].CopyFrom(numpy_helper.from_array(values, half_name))
        casts.append(helper.make_node("Cast", [half_name], [name], name=f"c{number}_Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _compare(module: nn.Module, example: Tensor, file: Path) -> None:
    import numpy as np

    with torch.no_grad():
        expected = module(example)
    expected = expected if isinstance(expected, (tuple, list)) else (expected,)
    session = open_session(file)
    got = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    for number, (want, have) in enumerate(zip(expected, got, strict=True)):
        error = float(np.abs(want.numpy() - have).max() / max(float(want.abs().max()), 1.0))
        if not error < 0.02:
            raise ValueError(
                f"{file}: output {number} differs from the trained network by {error:.3f}, expected < 0.02"
            )


def open_session(file: Path) -> Any:
    """Return an onnxruntime session with one thread."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])


def milliseconds(file: Path, shape: Sequence[int], repeats: int = 50) -> float:
    """Return the median time of one run on one thread, in milliseconds."""
    import time

    import numpy as np

    session = open_session(file)
    feed = {session.get_inputs()[0].name: np.zeros(shape, np.float32)}
    session.run(None, feed)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e3
