"""Find the recogniser in a face pack of insightface."""

from __future__ import annotations

from pathlib import Path


def recogniser_of(pack: Path) -> Path:
    """Return the ONNX file that insightface uses as the recogniser of a face pack; raise ValueError without one."""
    from insightface.model_zoo import get_model

    for file in sorted(pack.glob("*.onnx")):
        if getattr(get_model(str(file), providers=["CPUExecutionProvider"]), "taskname", None) == "recognition":
            return file
    raise ValueError(f"{pack}: no recognition network there; expected a face pack of insightface")
