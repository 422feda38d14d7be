"""Where the tests of anchoring have its inputs and outputs."""

from __future__ import annotations

from pathlib import Path

from pipelines.stages.train_anchoring import Inputs, Outputs


def inputs(data: object, root: Path, **more: Path) -> Inputs:
    return Inputs(processed=data.processed, state=root / ".dynamicid", **more)


def outputs(root: Path) -> Outputs:
    return Outputs(root / "models/anchoring", root / "reports/losses.csv", root / "reports/metrics.json")


def files(root: Path) -> dict[str, bytes]:
    """Return the outputs by name."""
    folders = (root / "models", root / "reports")
    return {str(f.relative_to(root)): f.read_bytes() for top in folders for f in top.rglob("*") if f.is_file()}
