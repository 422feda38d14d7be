"""Held-out procedural people as processed rows, tiny judges, a random CLIP, and the whole protocol on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.core.params import Params, load_params
from pipelines.core.row_schemas import PROCESSED_SCHEMA
from pipelines.core.sections.data import Rights
from pipelines.core.sections.evaluation import Judges as JudgeParams
from pipelines.data.faces.protocols import Detection
from pipelines.evaluation.batches import BatchRunner
from pipelines.evaluation.evaluation_set import EvaluationSet, build_evaluation_set
from pipelines.evaluation.judges import ExpressionJudge, PoseJudge, RecogniserJudge
from pipelines.evaluation.photos import PhotoRecord, held_out_records, read_photos
from pipelines.evaluation.picture_store import PictureStore
from pipelines.evaluation.plan import DRAWN
from pipelines.evaluation.prompts import load_prompts
from pipelines.evaluation.protocol import EvaluationResult, Judges, run_protocol
from pipelines.evaluation.readings import FaceReader
from pipelines.evaluation.report import write_report
from pipelines.evaluation.sampling import CellRenderer
from pipelines.evaluation.text_judge import TextJudge

HELD_OUT = 4
SMALL = [
    *("evaluate.people=4", "evaluate.steps=2", "evaluate.several_people.two=2", "evaluate.bootstrap=200"),
    *("evaluate.variant_cells=3", "evaluate.batch_size=64", "evaluate.diversity_seeds=2"),
]
# Bounds that random judges pass, too.
LAX = "evaluate.judges.bounds={photos: 1, faces_found: 0, recogniser_auc: 0, expression_kappa: -1, " + (
    "yaw_error: 1e9, yaw_correlation: -1, own_prompt: 0}"
)


@pytest.fixture(scope="session")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five procedural people at 64 px, 15 photos each: four held out, one to train on."""
    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    rows = []
    for index in range(HELD_OUT + 1):
        person = Person.sample("tests", 0, index)
        for number, scene in enumerate(person_scenes(0, index, "tests")):
            if scene.pose != "front" and scene.expression not in ("neutral", "happy"):
                continue
            picture = render(person, scene, 64)
            _, encoded = cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR))
            embedding = np.random.default_rng(index).normal(size=512).astype(np.float32)
            rows.append(
                {
                    "image_id": f"{index:02d}{number:02d}".ljust(64, "0"),
                    "identity": f"tests-{index:05d}",
                    "file_name": f"tests-{index:05d}/{number}.jpg",
                    "split": "test" if index < HELD_OUT else "train",
                    "status": "ok",
                    "reason": None,
                    "image": encoded.tobytes(),
                    "bbox": picture.box.tolist(),
                    "keypoints": picture.keypoints.reshape(-1).tolist(),
                    "landmarks": picture.landmarks.reshape(-1).tolist(),
                    "yaw": picture.yaw,
                    "pitch": picture.pitch,
                    "roll": picture.roll,
                    "embedding": (embedding / np.linalg.norm(embedding)).tolist(),
                    "det_score": 0.9,
                    "n_faces": 1,
                    "sharpness": 100.0,
                    "expression": scene.expression,
                    "prompt": scene.prompt,
                    "face_prompt": scene.face_prompt,
                    "source": None,
                    "licence": None,
                    "consent": None,
                }
            )
    folder = tmp_path_factory.mktemp("processed")
    pq.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA), folder / "part-0000.parquet")
    return folder


@pytest.fixture
def records() -> Callable[..., list[PhotoRecord]]:
    """Return a maker of records: `people` people with a photo for every expression and pose."""
    from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES

    def make(people: int = 4) -> list[PhotoRecord]:
        return [
            PhotoRecord(
                image_id=f"{person}-{expression}-{pose}",
                identity=f"p{person}",
                expression=expression,
                pose=pose,
                turned=abs(POSE_YAW[pose]),
                prompt="a photo of a woman" if person % 2 else "a photo of a person",
            )
            for person in range(people)
            for expression in EXPRESSIONS
            for pose in POSES
        ]

    return make


@pytest.fixture(scope="session")
def judge_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recogniser and an expression-and-pose network of the contract's shapes: random linear maps of patches."""
    folder = tmp_path_factory.mktemp("judges")
    files = {"recogniser": folder / "recogniser.onnx", "expression_pose": folder / "expression_pose.onnx"}
    save_linear_judge(files["recogniser"], {"embedding": 16}, seed=1)
    save_linear_judge(files["expression_pose"], {"expression": 7, "pose": 5, "yaw": 1}, seed=2)
    return files


def save_linear_judge(file: Path, outputs: dict[str, int], seed: int) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]
    weights = []
    for name, width in outputs.items():
        weights.append(numpy_helper.from_array(rng.normal(size=(192, width)).astype(np.float32), f"{name}_weight"))
        nodes.append(helper.make_node("MatMul", ["flat", f"{name}_weight"], [name]))
    graph = helper.make_graph(
        nodes,
        "judge",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 112, 112])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in outputs.items()],
        weights,
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)


@pytest.fixture(scope="session")
def judge_params(judge_files: dict[str, Path], clip_folder: Path) -> JudgeParams:
    """The parameters of those two files, the second read as three judges, and of a random CLIP."""
    shared = {"path": str(judge_files["expression_pose"]), "crop": "face"}
    return JudgeParams(
        recogniser={"path": str(judge_files["recogniser"]), "crop": "arcface"},
        expression=[{**shared, "output": "expression", "classes": EXPRESSIONS, "values": "logits"}],
        yaw=[{**shared, "output": "yaw", "angles": ["yaw"]}],
        pose={**shared, "output": "pose", "classes": POSES, "values": "logits"},
        clip=str(clip_folder),
    )


@pytest.fixture(scope="session")
def face_reader(judge_params: JudgeParams) -> Callable[[Any], FaceReader]:
    """Return a maker of the reader with those judges and a given detector."""
    params = judge_params
    judges = RecogniserJudge(params.recogniser), ExpressionJudge(params.expression), PoseJudge(params.yaw, params.pose)
    return lambda detector: FaceReader(detector, *judges)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel with random weights in its saved layout."""
    from tests.random_networks import save_random_clip

    return save_random_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Random base models and an adapter whose every part does something."""
    from model.foundation.random_models import save_random_models
    from model.network.base import load_base
    from tests.random_networks import random_adapter

    models = save_random_models(tmp_path_factory.mktemp("base"))
    base = load_base(models.pipeline, models.image_encoder)
    folder = tmp_path_factory.mktemp("adapter")
    random_adapter(base).save(folder, base.reference("sd", "image_encoder"))
    return models.pipeline, models.image_encoder, folder


def assert_close(found: Any, expected: Any) -> None:
    """Assert that two parts of metrics.json have the same keys, and numbers that agree within half a thousandth."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    else:
        assert found == pytest.approx(expected, abs=5e-4)


class CentreDetector:
    """Finds a face in the middle of every picture, or with `people` side by side in as many vertical slices."""

    def __init__(self, people: int = 1) -> None:
        self._people = people

    def detect(self, image: np.ndarray) -> list[Detection]:
        from model.face.face_geometry import CROP_TEMPLATE

        height, width = image.shape[:2]
        found = []
        for place in range(self._people):
            slot = width / self._people
            points = CROP_TEMPLATE * [slot, height] + [place * slot, 0]
            box = np.array([place * slot + 0.2 * slot, 0.2 * height, place * slot + 0.8 * slot, 0.8 * height])
            found.append(Detection(box.astype(np.float32), points.astype(np.float32), 0.9))
        return found


@pytest.fixture(scope="session")
def centre_detector() -> type[CentreDetector]:
    return CentreDetector


@pytest.fixture(scope="session")
def params(project: Path) -> Params:
    """The tiny profile with an evaluation of a few pictures."""
    return load_params(project / "profiles" / "tiny.yaml", SMALL)


@pytest.fixture
def ask(records: Callable[..., list[PhotoRecord]], params: Params) -> Callable[..., EvaluationSet]:
    """Make an evaluation set: (how many people, or their photos, changes of the section evaluate) → the set."""

    def make(photos: int | list[PhotoRecord] = 4, **changes: object) -> EvaluationSet:
        found = records(photos) if isinstance(photos, int) else photos
        return build_evaluation_set(found, params.evaluate.model_copy(update=changes), load_prompts())

    return make


@pytest.fixture
def random_params(
    project: Path,
    adapter_folder: tuple[Path, Path, Path],
    judge_params: JudgeParams,
    shared: Path,
) -> Params:
    """Parameters of the whole evaluation on the random base models, with real networks that find and know faces."""
    # The shipped adapter fits only the shipped base.
    changes = {
        **{
            "evaluate.shipped_adapter": "null",
            "evaluate.steps": 1,
            "evaluate.several_people.two": 1,
            "evaluate.bootstrap": 50,
        },
        **{"evaluate.variant_cells": 2, "base.pipeline": adapter_folder[0], "base.image_encoder": adapter_folder[1]},
        "preprocess.insightface_name": "buffalo_real_mini",
        "preprocess.insightface_root": shared / "weights" / "insightface",
    }
    names = [*SMALL, *(f"{name}={value}" for name, value in changes.items())]
    params = load_params(project / "profiles" / "tiny.yaml", names)
    real = judge_params.recogniser.model_copy(update={"path": str(shared / "weights/judge/mobilefacenet128.onnx")})
    judges = judge_params.model_copy(update={"recogniser": real})
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"judges": judges})})


@dataclass(frozen=True)
class Evaluated:
    result: EvaluationResult
    document: dict[str, Any]
    page: str


@pytest.fixture(scope="module")
def evaluate(
    *,
    processed: Path,
    adapter_folder: tuple[Path, Path, Path],
    face_reader: Callable[[Any], FaceReader],
    clip_folder: Path,
    centre_detector: type,
    project: Path,
) -> Callable[..., Evaluated]:
    from model.inference.pipeline import DynamicIDPipeline

    def run(
        *changes: str,
        losses: dict[str, Path] | None = None,
        ship: bool = False,
        variants: Collection[str] = DRAWN,
        work: Path | None = None,
    ) -> Evaluated:
        names = [*SMALL, LAX, *(f"evaluate.{change}" for change in changes)]
        params = load_params(project / "profiles" / "tiny.yaml", names)
        records = held_out_records(processed, Rights())
        questions = build_evaluation_set(records, params.evaluate, load_prompts())
        held_out = read_photos(processed, records, questions.photo_ids())
        renderer, shipped = (
            CellRenderer(DynamicIDPipeline.from_folders(*adapter_folder), params.evaluate, 64, key=key)
            for key in ("trained", "shipped")
        )
        judges = Judges(face_reader(centre_detector()), TextJudge(clip_folder), "judges")
        extra: dict[str, Any] = {"shipped": shipped if ship else None, "variants": variants}
        extra["runner"] = BatchRunner(judges, PictureStore(work))
        result = run_protocol(questions, held_out, renderer, judges, params.evaluate, **extra)
        document = result.document(
            {"profile": "tiny", "sampler": "ddim", "steps": 2, "guidance": 3.0, "resolution": 64, "pictures": 99}
        )
        return Evaluated(result, document, write_report(result, document, losses or {}))

    return run


@pytest.fixture(scope="module")
def evaluated(evaluate: Callable[..., Evaluated]) -> Evaluated:
    return evaluate("several_people.three=1")
