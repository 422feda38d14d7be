"""Evaluate one adapter on held-out people: the stage and the comparison with a champion both call `evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params
from pipelines.core.paths import resolve

if TYPE_CHECKING:
    from pipelines.evaluation.evaluation_set import EvaluationSet
    from pipelines.evaluation.photos import HeldOut
    from pipelines.evaluation.sampling import Painter


def evaluate(
    params: Params,
    processed: Path,
    adapter: Path,
    *,
    metrics: Path,
    report: Path,
    losses: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Evaluate `adapter` on the held-out people of `processed`; write `metrics` (JSON) and `report` (HTML).

    `losses`: training → its loss curve (CSV), shown in the report. Returns what `metrics` holds. Raises UserError where
    a model, a judge or the IMR is missing or held-out people have no identity, StageFailed where a held-out person is
    in another split.
    """
    from pipelines.evaluation.protocol import run_protocol
    from pipelines.evaluation.report import write_report

    settings = params.evaluate
    # The judges first: they are loaded in no time, and a missing one shows before anything is drawn.
    jury = jury_of(params)
    questions, held_out, painter = open_questions(params, processed, adapter)
    if len(questions.people) < settings.people:
        print(
            f"evaluate: {len(questions.people)} held-out people take part, evaluate.people allows {settings.people}",
            file=sys.stderr,
        )
    shipped = _shipped(params)
    outcome = run_protocol(questions, held_out, painter, jury, settings, shipped=shipped)
    document = outcome.document(_settings(params, adapter, painter.pipe, pictures=len(outcome.drawn)))
    _write(metrics, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    _write(report, write_report(outcome, document, dict(losses or {})))
    return document


def open_questions(params: Params, processed: Path, adapter: Path) -> tuple[EvaluationSet, HeldOut, Painter]:
    """Return what is asked, every photo that it names, and who draws it; raises as `evaluate` does."""
    from pipelines.evaluation.evaluation_set import build_evaluation_set
    from pipelines.evaluation.photos import held_out_records, read_photos
    from pipelines.evaluation.prompts import load_prompts

    records = held_out_records(processed)
    questions = build_evaluation_set(records, params.evaluate, load_prompts())
    return questions, read_photos(processed, records, questions.photo_ids()), _painter(params, adapter)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _pipeline(params: Params, adapter: Path) -> Any:
    """Load base and adapter; raise UserError where they do not fit or the IMR is not trained yet."""
    import torch

    from model.inference.pipeline import pipeline_class

    try:
        base = resolve(params.base.pipeline)
        pipe = pipeline_class(base).from_folders(
            base,
            resolve(params.base.image_encoder),
            adapter,
            dtype=getattr(torch, params.base.dtype),
            device=_device(),
        )
    except ValueError as error:
        raise UserError(f"evaluate: {error}") from error
    if pipe.adapter is None or pipe.adapter.templates is None:
        raise UserError(f"{adapter}: this adapter has no IMR yet; run train_imr, which adds it")
    pipe.fold_lora()
    return pipe


def _painter(params: Params, adapter: Path) -> Painter:
    from pipelines.evaluation.sampling import Painter

    return Painter(_pipeline(params, adapter), params.evaluate, params.base.resolution)


def _shipped(params: Params) -> Painter | None:
    """Return who draws with the shipped adapter; raise UserError where it does not fit the base."""
    if params.evaluate.shipped_adapter is None:
        return None
    try:
        return _painter(params, resolve(params.evaluate.shipped_adapter))
    except UserError as error:
        raise UserError(f"{error}; evaluate.shipped_adapter=null leaves the shipped adapter out") from error


def jury_of(params: Params) -> Any:
    """Return all the judges that the parameters name; raise UserError where one is missing or is none."""
    from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser
    from pipelines.evaluation.judges import ExpressionPoseJudge, RecogniserJudge
    from pipelines.evaluation.protocol import Jury
    from pipelines.evaluation.readings import Examiner
    from pipelines.evaluation.text_judge import TextJudge

    judges, faces = params.evaluate.judges, params.preprocess
    recogniser = RecogniserJudge(
        resolve(judges.recogniser),
        size=judges.recogniser_size,
        mean=judges.recogniser_mean,
        scale=judges.recogniser_scale,
    )
    detector = InsightFaceAnalyser(_pack(params), det_sizes=faces.det_sizes, det_threshold=faces.det_threshold)
    expression_pose = ExpressionPoseJudge(resolve(judges.expression_pose))
    return Jury(Examiner(detector, recogniser, expression_pose), TextJudge(resolve(judges.clip), _device()))


def _pack(params: Params) -> Path:
    """Return the folder of the face pack that finds the faces; raise UserError where it is missing."""
    from pipelines.data.faces.insightface_analyser import pack_folder

    return pack_folder(params.preprocess.insightface_name, resolve(params.preprocess.insightface_root))


def _settings(params: Params, adapter: Path, pipe: Any, *, pictures: int) -> dict[str, Any]:
    """Return the conditions under which the result was made: without them two results cannot be compared."""
    from model.network.base import fingerprint

    settings = params.evaluate
    judges = settings.judges
    return {
        "profile": params.profile,
        "resolution": params.base.resolution,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "guidance_rescale": settings.guidance_rescale,
        "boost": settings.boost,
        "boost_steps": settings.boost_steps,
        "layout_steps": settings.layout_steps,
        "weights": "ema",  # training writes its moving averages into an adapter, never the last step
        "gate_threshold": pipe.adapter.gate_threshold,
        "bootstrap": settings.bootstrap,
        "pictures": pictures,
        "adapter": sha256(adapter / "adapter.safetensors"),
        "shipped_adapter": settings.shipped_adapter
        and sha256(resolve(settings.shipped_adapter) / "adapter.safetensors"),
        "base": pipe.adapter.base_reference.fingerprint,
        "faces": {
            "pack": {file.name: sha256(file) for file in sorted(_pack(params).glob("*.onnx"))},
            "det_sizes": list(params.preprocess.det_sizes),
            "det_threshold": params.preprocess.det_threshold,
        },
        "judges": {
            "recogniser": sha256(resolve(judges.recogniser)),
            "expression_pose": sha256(resolve(judges.expression_pose)),
            "clip": fingerprint(resolve(judges.clip)),
        },
    }


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
