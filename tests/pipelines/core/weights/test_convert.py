"""Networks that are published in another form are made from the published files, byte by byte as they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.weights.convert import convert
from pipelines.core.weights.manifest import read_manifest

NAME, MADE = "faceapi-expression", "faceapi_expression.onnx"
WEIGHTS, LAYOUT = "face_expression_model.bin", "face_expression_model-weights_manifest.json"
# The layers in the order of the published file, with the widths before and after each.
LAYERS = [
    (f"dense{block}/conv{number}", width if number else before, width)
    for block, (before, width) in enumerate([(3, 32), (32, 64), (64, 128), (128, 256)])
    for number in range(4)
]


def shapes() -> dict[str, list[int]]:
    """Return the published names and shapes of all weights."""
    found: dict[str, list[int]] = {}
    for layer, before, width in LAYERS:
        if layer == "dense0/conv0":
            found[f"{layer}/filters"] = [3, 3, before, width]
        else:
            found |= {f"{layer}/depthwise_filter": [3, 3, before, 1]}
            found |= {f"{layer}/pointwise_filter": [1, 1, before, width]}
        found[f"{layer}/bias"] = [width]
    return found | {"fc/weights": [256, 7], "fc/bias": [7]}


def publish(folder: Path, values: dict[str, np.ndarray]) -> None:
    """Write weights as face-api publishes them: kernels in one byte each."""
    data, entries = b"", []
    for name, value in values.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": "float32"}
        if name.endswith("bias"):
            data += value.astype("<f4").tobytes()
        else:
            least, step = packing(value)
            entry["quantization"] = {"dtype": "uint8", "scale": float(step), "min": float(least)}
            data += np.round((value - least) / step).astype(np.uint8).tobytes()
        entries.append(entry)
    (folder / WEIGHTS).write_bytes(data)
    (folder / LAYOUT).write_text(json.dumps([{"weights": entries, "paths": [WEIGHTS]}]))


def packing(value: np.ndarray) -> tuple[np.float32, np.float32]:
    """Return the smallest value and the step of the 256 values that `value` (float32) has."""
    least = value.min()
    guess = np.float32((float(value.max()) - float(least)) / 255)
    for step in guess + np.spacing(guess) * np.arange(-4, 5, dtype=np.float32):
        if np.array_equal(np.round((value - least) / step) * step + least, value):
            return least, step
    return least, guess


def trust(root: Path, folder: Path, *files: str) -> None:
    """Let the manifest of a checkout expect these published files, and of the network whatever comes."""
    entry = read_manifest(root).network(NAME).model_dump(mode="json", exclude_none=True)
    for file, known in entry["made_from"]["files"].items():
        if Path(file).name in files:
            known |= {"sha256": sha256(folder / Path(file).name)}
    if WEIGHTS in files:
        entry["files"] = {MADE: {}}
    (root / "weights.yaml").write_text(yaml.safe_dump({"format": 1, "networks": {NAME: entry}}))


@pytest.mark.realdata
def test_the_published_file_becomes_the_measured_one(shared: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    measured = shared / "weights" / "expression" / MADE
    graph = onnx.load(str(measured)).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    values = {}
    for (name, shape), value in zip(shapes().items(), known.values(), strict=True):
        axes = {"depthwise_filter": (2, 3, 0, 1), "weights": (1, 0), "bias": (0,)}
        values[name] = value.transpose(axes.get(name.split("/")[-1], (2, 3, 1, 0)))
        assert list(values[name].shape) == shape
    publish(tmp_path, values)
    trust(tmp_path, tmp_path, LAYOUT)  # the hash of the other one is that of the published file
    done = convert(tmp_path, NAME, tmp_path)
    assert (tmp_path / done.path / MADE).read_bytes() == measured.read_bytes()


def test_what_is_made_computes_expressions_and_is_recorded(tmp_path: Path) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    publish(tmp_path, {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes().items()})
    trust(tmp_path, tmp_path, WEIGHTS, LAYOUT)
    done = convert(tmp_path, NAME, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / done.path / MADE))
    (found,) = session.run(None, {"input": rng.normal(size=(2, 3, 112, 112)).astype(np.float32)})
    assert found.shape == (2, 7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert sha256(tmp_path / done.path / MADE) in (tmp_path / "weights.lock").read_text()


def test_other_files_and_networks_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no {WEIGHTS}; {NAME} is made from npm package @vladmandic/face-api 1.7.15"):
        convert(tmp_path, NAME, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"other")
    with pytest.raises(UserError, match=rf"{WEIGHTS}: sha256 d9298a10d1b0, expected 9a9840f2cf1f: take it from npm"):
        convert(tmp_path, NAME, tmp_path)
    with pytest.raises(UserError, match="fer: the project cannot make it; it converts faceapi-expression"):
        convert(tmp_path, "fer", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        convert(tmp_path, NAME, tmp_path / "nowhere")
    assert not (tmp_path / "weights").exists()
