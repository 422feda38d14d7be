"""The judges that the parameters name, loaded, and what their readings depend on."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.sections.evaluation import DetectorJudge
from pipelines.core.sections.evaluation import Judges as JudgeParams
from pipelines.core.sections.face_networks import FaceNetwork

if TYPE_CHECKING:
    from pipelines.evaluation.protocol import Judges


def load_judges(params: Params) -> Judges:
    """Return the judges that the parameters name.

    Raises UserError where one is missing, has the wrong form, or is a network of preprocessing in any file: what
    conditions the model, or labels its photos, cannot judge it.
    """
    from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser
    from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge, YuNetDetector
    from pipelines.evaluation.protocol import Judges
    from pipelines.evaluation.readings import FaceReader
    from pipelines.evaluation.sampling import device
    from pipelines.evaluation.text_judge import NoTextJudge, TextJudge

    named, faces = params.evaluate.judges, params.preprocess
    reader = FaceReader(
        InsightFaceAnalyser(_face_pack(params), det_sizes=faces.det_sizes, det_threshold=faces.det_threshold)
        if named.detector is None
        else YuNetDetector(named.detector),
        RecogniserJudge(named.recogniser),
        ExpressionJudge(named.expression) if named.expression else None,
        PoseJudge(named.yaw, named.pose) if named.yaw else None,
    )
    refuse_shared(params)
    text = NoTextJudge() if named.clip is None else TextJudge(resolve(named.clip), device())
    code = ("pipelines/data/faces/*.py", *(f"pipelines/evaluation/{name}*.py" for name in ("judge", "read", "text_")))
    return Judges(reader, text, cache_key(judged_by(params), *code))


def judged_by(params: Params) -> dict[str, Any]:
    """Return what the judges' readings depend on: the face detector, and every judge."""
    from model.network.base import fingerprint

    judges = params.evaluate.judges
    return {
        "faces": {
            "pack": {file.name: sha256(file) for file in sorted(_face_pack(params).glob("*.onnx"))},
            "det_sizes": list(params.preprocess.det_sizes),
            "det_threshold": params.preprocess.det_threshold,
        },
        "judges": {
            **{name: _identity(network) for name, network in _face_networks(judges).items()},
            "detector": None if judges.detector is None else _identity(judges.detector),
            "clip": None if judges.clip is None else fingerprint(resolve(judges.clip)),
        },
    }


def _face_networks(judges: JudgeParams) -> dict[str, FaceNetwork]:
    """Return the networks that judge faces, by their keys in the section."""
    lists = {"expression": judges.expression, "yaw": judges.yaw}
    several = {f"{key}.{number}": one for key, found in lists.items() for number, one in enumerate(found)}
    return {"recogniser": judges.recogniser, **several, **({} if judges.pose is None else {"pose": judges.pose})}


def refuse_shared(params: Params) -> None:
    """Raise UserError where a judge of faces has the weights of a network of preprocessing."""
    from pipelines.core.weights.identify import same_weights
    from pipelines.core.weights.manifest import named_paths

    tree = {"preprocess": params.preprocess.model_dump(mode="json", by_alias=True)}
    shaping = {
        file: key
        for key, path in named_paths(tree, ("preprocess",)).items()
        for place in (resolve(path),)
        for file in ([place] if place.is_file() else sorted(place.glob("*.onnx")))
        if file.suffix == ".onnx"
    }
    for name, network in _face_networks(params.evaluate.judges).items():
        for file, key in shaping.items():
            if same_weights(resolve(network.path), file):
                raise UserError(
                    f"evaluate.judges.{name}.path = {network.path}: it has the weights of {file.name} ({key}), which "
                    "conditions the model or labels its photos, so it cannot judge; name a network of another training"
                )


def _face_pack(params: Params) -> Path:
    """Return the folder of the face detector's pack; raise UserError where it is missing."""
    from pipelines.data.faces.insightface_analyser import pack_folder

    return pack_folder(params.preprocess.insightface_name, resolve(params.preprocess.insightface_root))


def _identity(network: FaceNetwork | DetectorJudge) -> dict[str, Any]:
    """Return the hash of a judge's file, and the parameters on which its figures depend."""
    return {"sha256": sha256(resolve(network.path)), **network.model_dump(mode="json", exclude={"path"})}


def cache_key(made_of: object, *code: str) -> str:
    """Return a sha256 (hex) of `made_of`, the files that match `code`, the libraries and the kind of device."""
    from pipelines.data.faces.version import code_files
    from pipelines.evaluation.sampling import device

    files = [sha256(file) for pattern in code for file in code_files(pattern)]
    libraries = [version(name) for name in ("torch", "diffusers", "transformers", "numpy", "onnxruntime")]
    return hashlib.sha256(repr((made_of, files, libraries, device())).encode()).hexdigest()
