"""The paper's questions: what is asked, how it is counted, and that judges which cannot judge give no number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES, parse
from pipelines.core.params import Params, load_params
from pipelines.evaluation.batches import BatchRunner
from pipelines.evaluation.evaluate import _recorded
from pipelines.evaluation.evaluation_set import EvaluationSet
from pipelines.evaluation.paper import PUBLISHED, paper_questions, run_paper
from pipelines.evaluation.picture_store import DrawnPicture
from pipelines.evaluation.plan import TokenTable
from pipelines.evaluation.readings import Readings
from pipelines.evaluation.variants import PAPER_METRICS, PAPER_VARIANTS
from tests.published_files import converted, dynamicid, write_home

Ask = Callable[..., EvaluationSet]


def test_every_person_is_asked_for_every_expression_and_pose_in_published_words(ask: Ask) -> None:
    ours = ask(3)
    paper = paper_questions(ours, 0)
    assert paper.people == ours.people
    assert {(cell.person, cell.expression, cell.pose) for cell in paper.cells} == {
        (person, expression, pose) for person in range(3) for expression in EXPRESSIONS for pose in POSES
    }
    for cell in paper.cells:
        read = parse(cell.face_prompt)
        assert (read.expression, read.pose) == (cell.expression, cell.pose), cell.face_prompt
    assert paper.cells[0].face_prompt == "the expression is neutral, the face is fully turned to the left"
    assert {cell.prompt for cell in paper.cells} == {0, 1}
    assert paper.hash != ours.hash
    assert paper_questions(ours, 1).hash != paper.hash


class Painter:
    """Draws its tokens: person, expression and pose as three pixels; `blind` draws nothing."""

    def __init__(self, params: Any, *, obeys: bool) -> None:
        self.params = params
        self.resolution = 1
        self.obeys = obeys

    def tokens(self, questions: EvaluationSet, photos: Any) -> TokenTable:
        own = {person: np.array([[person, 0, 2]], np.float32) for person in range(len(questions.people))}
        asked = {
            (cell.person, cell.expression, cell.pose): np.array(
                [[cell.person, EXPRESSIONS.index(cell.expression), POSES.index(cell.pose)]], np.float32
            )
            for cell in questions.cells
        }
        return TokenTable(
            own=own, asked=asked if self.obeys else {key: own[key[0]] for key in asked}, true={}, multi={}
        )

    def key_of(self, spec: Any) -> str:
        return str(spec.key)

    def draw_batch(self, specs: Sequence[Any]) -> list[DrawnPicture]:
        return [DrawnPicture(np.rint(spec.tokens[None]).astype(np.uint8), None) for spec in specs]


class Reader:
    """Reads what such pictures show; people are orthogonal. `faces`: whether it finds any."""

    def __init__(self, *, faces: bool) -> None:
        self.faces = faces

    def single(self, images: Sequence[np.ndarray]) -> Readings:
        person, expression, pose = np.array([image[0, 0] for image in images]).T.astype(int)
        found = np.full(len(images), self.faces)
        embeddings = np.eye(8, dtype=np.float32)[person] * found[:, None]
        return Readings(found, np.zeros((len(images), 4)), embeddings, expression, pose, np.zeros(len(images)))

    def known(self, photos: Sequence[int]) -> Any:
        return SimpleNamespace(embeddings=np.eye(8, dtype=np.float32)[list(photos)])


class Texts:
    """Pictures have half of their features in common with every text."""

    def pictures(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(np.array([[0.5, 0.0]], np.float32), (len(images), 1))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(texts), 1))


@pytest.mark.parametrize(
    ("obeys", "faces", "model"),
    [
        (True, True, {"CLIP-T": 0.5, "FaceSim": 1.0, "Expr": 1.0, "Pose": 1.0}),
        (False, True, {"CLIP-T": 0.5, "FaceSim": 1.0, "Expr": 1 / 7, "Pose": 1 / 5}),
        (True, False, {"CLIP-T": 0.5, "FaceSim": 0.0, "Expr": 0.0, "Pose": 0.0}),
    ],
    ids=["perfect", "copies the reference", "no face"],
)
def test_the_four_metrics_of_a_perfect_a_useless_and_a_faceless_model(
    ask: Ask, params: Params, obeys: bool, faces: bool, model: dict[str, float]
) -> None:
    ours = ask(3)
    held_out: Any = SimpleNamespace(photos={person.reference: number for number, person in enumerate(ours.people)})
    renderer: Any = Painter(params.evaluate, obeys=obeys)
    judges: Any = SimpleNamespace(faces=Reader(faces=faces), text=Texts(), key="judges")
    runner = BatchRunner(judges)
    found = run_paper(ours, held_out, renderer, runner, {})
    document = found.document()
    assert {name: one["value"] for name, one in document["model"].items()} == pytest.approx(model, abs=1e-6)
    if faces:
        # Without the IMR every picture shows the neutral frontal reference: chance, as the paper's own figures do.
        assert document["without_imr"]["Expr"]["value"] == pytest.approx(1 / 7, abs=1e-6)
        assert abs(PUBLISHED["without_imr"]["Expr"] - 1 / 7) < 0.03
    assert document["pictures"] == found.pictures
    withheld = run_paper(ours, held_out, renderer, runner, {"text": "no network", "pose": "yaw off by 40"}).document()
    assert withheld["model"]["CLIP-T"] == {"value": None, "reason": "text: no network"}
    assert withheld["model"]["Pose"] == {"value": None, "reason": "pose: yaw off by 40"}
    assert withheld["model"]["Expr"] == document["model"]["Expr"]


def test_a_result_of_our_protocol_records_no_other_keys(params: Params, project: Path) -> None:
    assert not {"protocol", "processes"} & set(_recorded(params)["evaluate"])
    asked = load_params(project / "profiles" / "tiny.yaml", ["evaluate.protocol=paper"])
    assert _recorded(asked)["evaluate"]["protocol"] == "paper"


@pytest.mark.nightly
def test_published_files_are_asked_what_the_paper_asks(project: Path, processed: Path, tmp_path: Path) -> None:
    """From published files to metrics.json at the command line; judges of drawn people cannot judge a random base."""
    home = write_home(tmp_path / "home", project)
    adapter = converted(home, tmp_path / "adapter", "conventions.steps=1", "conventions.guidance=4.5")
    metrics, report = tmp_path / "metrics.json", tmp_path / "index.html"
    paths = ["--processed", processed, "--adapter", adapter, "--metrics", metrics, "--report", report]
    result = dynamicid("evaluate", "--protocol", "paper", *paths, "--params", home / "params.yaml")
    assert result.exit_code == 0, result.output
    document = json.loads(metrics.read_text("utf-8"))
    assert document["paper"]["prompts"] == ["a person walking on the street", "a person in garden"]
    assert document["paper"]["pictures"] == 2 * (35 + 35 + 2)
    for variant in PAPER_VARIANTS:
        assert tuple(document["paper"][variant]) == PAPER_METRICS
    # Random pictures of a random decoder: no judge of faces can judge them, so none of their metrics has a value.
    unfit = {name: judge["reason"] for name, judge in document["judges"].items() if judge["reason"]}
    assert "detector" in unfit
    for name in ("FaceSim", "Expr", "Pose"):
        assert document["paper"]["model"][name]["value"] is None
        assert unfit["detector"] in document["paper"]["model"][name]["reason"]
    settings = document["settings"]
    assert (settings["steps"], settings["guidance"], settings["resolution"]) == (1, 4.5, 64)
    assert settings["conventions"]["crop"] == "photo"
    assert document["made_by"]["params"]["evaluate"]["protocol"] == "paper"
    page = report.read_text("utf-8")
    assert "The questions of the paper" in page
    assert "paper: 0.671" in page
