"""Evaluate one adapter on held-out people: the stage and the comparison with a champion both call `evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.network.methods import DYNAMICID
from pipelines.core.errors import UserError
from pipelines.core.files import folder_sha256, sha256, write_atomically
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.sections.evaluation import SeveralPeople
from pipelines.core.words import counted
from pipelines.evaluation.belonging import MADE_BY, check_training_reports, metrics_mark, record_of
from pipelines.evaluation.judge_loading import cache_key, judged_by, load_judges
from pipelines.evaluation.plan import DRAWN, variants_of
from pipelines.evaluation.plots import read_losses
from pipelines.evaluation.seen import leave_out_seen, ledgers_of, plain

if TYPE_CHECKING:
    from pipelines.evaluation.evaluation_set import EvaluationSet
    from pipelines.evaluation.photos import HeldOut
    from pipelines.evaluation.protocol import EvaluationResult
    from pipelines.evaluation.sampling import CellRenderer

# The folder of pages of people, with the pictures that they show.
_PEOPLE = "people"


def evaluate(
    params: Params,
    processed: Path,
    adapter: Path,
    *,
    metrics: Path,
    report: Path,
    losses: Mapping[str, Path] | None = None,
    variants: Collection[str] = DRAWN,
    work: Path | None = None,
    keep: Callable[[EvaluationResult], object] | None = None,
) -> dict[str, Any]:
    """Evaluate `adapter` on the held-out people of `processed`; write `metrics` (JSON) and `report` (HTML).

    `losses` maps a training to its loss curve (CSV) for the report; `variants` is as in `run_protocol`; `work` is the
    folder of the pictures, from which an evaluation that was killed goes on (default: a temporary one); `keep` is
    called with the result before the outputs are written. Returns the contents of `metrics`. Raises UserError where a
    model, a judge, the IMR or a loss curve is missing, or there are fewer than two usable people; StageFailed where a
    held-out person also has photos in another split, the disk is too small or a process dies.
    """
    from pipelines.core.weights.domains import check_domains, domains_of, network_domains
    from pipelines.evaluation.batches import BatchRunner
    from pipelines.evaluation.division import Helpers
    from pipelines.evaluation.paper import run_paper
    from pipelines.evaluation.picture_store import PictureStore
    from pipelines.evaluation.protocol import run_protocol
    from pipelines.evaluation.report import write_people, write_report

    settings, store = params.evaluate, PictureStore(work)
    # The photos are read at work, too: `forget` waits for whoever has read them.
    with store.at_work(), Helpers(params, store.folder) as helpers:
        used = network_domains(params, ("base", "preprocess", "evaluate"))
        check_domains(str(processed), used, measured=domains_of(processed))
        # The judges are loaded first: this is quick, and a missing one is reported before anything is drawn.
        judges = load_judges(params)
        runner = BatchRunner(judges, store, helpers if settings.processes > 1 else None)
        curves = _curves_of(adapter, losses or {})
        questions, held_out, renderer = open_questions(params, processed, adapter)
        ledgers = ledgers_of(params, adapter)
        drawn = _variants(params, renderer, variants)
        if len(questions.people) < settings.people:
            print(
                f"evaluate: with {counted(len(questions.people), 'held-out person', 'held-out people')}, "
                f"evaluate.people allows {settings.people}",
                file=sys.stderr,
            )
        beyond = drawable_people(params)[1]
        for count, reason in beyond.items():
            print(f"evaluate: pictures of {count} people are left out: {reason}", file=sys.stderr)
        extra: dict[str, Any] = {"beyond": beyond, "variants": drawn, "runner": runner}
        result = run_protocol(questions, held_out, renderer, judges, settings, shipped=_shipped(params), **extra)
        document = result.document(_conditions(params, adapter, renderer, pictures=len(result.drawn)))
        taking_part = {person.identity for person in questions.people}
        document["seen_by_shipped"] = plain(taking_part, held_out.left_out, ledgers)
        paper = None
        if settings.protocol == "paper":
            paper = run_paper(questions, held_out, renderer, runner, result.unfit)
            document["paper"] = paper.document()
        document[MADE_BY] = {
            "stage": "evaluate",
            "inputs": {"adapter": folder_sha256(adapter), "photos": held_out.digest()},
            "params": _recorded(params),
            **({} if (method := renderer.pipe.adapter.method) == DYNAMICID else {"method": method.name}),
        }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        mark = metrics_mark(text.encode())
        page = write_report(result, document, curves, mark, paper)
        if keep is not None:
            keep(result)
        write_atomically(metrics, text)
        write_atomically(report, page)
        if work is not None and write_people(result, work / _PEOPLE, mark):
            print(f"evaluate: pages of the people whom the report does not show: {work / _PEOPLE}", file=sys.stderr)
    return document


def _variants(params: Params, renderer: CellRenderer, wanted: Collection[str]) -> tuple[str, ...]:
    """Return the variants that the method of the adapter can draw; name the others.

    Raises UserError where the parameters ask for comparisons of parts that it lacks.
    """
    method, settings = renderer.pipe.adapter.method, params.evaluate
    drawn = variants_of(method, wanted)
    if left_out := [variant for variant in variants_of(DYNAMICID, wanted) if variant not in drawn]:
        print(f"evaluate: {method.name} has no part that {', '.join(left_out)} leaves out: not drawn", file=sys.stderr)
    if method.facial_parts and any(settings.several_people.pictures.values()):
        print(
            f"evaluate: pictures of several people are drawn without the facial parts of {method.name}", file=sys.stderr
        )
    for asked, name in ((settings.protocol == "paper", "protocol=paper"), (settings.sweeps, "sweeps=true")):
        if asked and left_out:
            raise UserError(f"evaluate.{name} compares the gate and the IMR of DynamicID; {method.name} has neither")
    return drawn


def _recorded(params: Params) -> dict[str, Any]:
    """Return the parameters that a result depends on: the protocol where it is not this project's own."""
    sections: dict[str, Any] = params.model_dump(
        mode="json", by_alias=True, include={"base", "preprocess", "rights", "evaluate"}
    )
    del sections["evaluate"]["processes"]
    if params.evaluate.protocol == "ours":
        del sections["evaluate"]["protocol"]
    return sections


def _curves_of(adapter: Path, losses: Mapping[str, Path]) -> dict[str, Path]:
    """Return the loss curves of the trainings that made `adapter`; say which are left out, as nothing shows that.

    Raises UserError where a curve is missing, StageFailed where it is of another training.
    """
    stages = {"anchoring": "train_anchoring", "reconfiguration": "train_imr"}
    shown = {}
    for name, file in losses.items():
        if not np.isfinite(read_losses(file)["loss"]).any():
            continue  # nothing was trained
        if record_of(adapter, stages[name]) is None:
            print(f"evaluate: {adapter} has no record of {stages[name]}: {file} is left out", file=sys.stderr)
            continue
        check_training_reports(adapter, stages[name], {"losses.csv": file})
        shown[name] = file
    return shown


def photos_digest(params: Params, processed: Path) -> str:
    """Return the sha256 (hex) of the photos that an evaluation with `params` would read; raises as `evaluate`."""
    return questions_of(params, processed)[1].digest()


def open_questions(params: Params, processed: Path, adapter: Path) -> tuple[EvaluationSet, HeldOut, CellRenderer]:
    """Return the evaluation set, its photos, and the renderer of `adapter`; raises as `evaluate` does."""
    return *questions_of(params, processed, adapter), load_renderer(params, adapter)


def questions_of(params: Params, processed: Path, *adapters: Path) -> tuple[EvaluationSet, HeldOut]:
    """Return what is asked of `adapters`, and the photos; people whom networks saw take no part, or are an error.

    Raises as `evaluate` does.
    """
    from pipelines.evaluation.evaluation_set import build_evaluation_set
    from pipelines.evaluation.photos import held_out_records, read_photos
    from pipelines.evaluation.prompts import load_prompts

    records = held_out_records(processed, params.rights, params.evaluate.split)
    left_out = leave_out_seen({record.identity for record in records}, ledgers_of(params, *adapters), params)
    records = [record for record in records if record.identity not in left_out]
    several = drawable_people(params)[0]
    settings = params.evaluate.model_copy(update={"several_people": several})
    questions = build_evaluation_set(records, settings, load_prompts(settings.scenes))
    return questions, replace(read_photos(processed, records, questions.photo_ids()), left_out=left_out)


def drawable_people(params: Params) -> tuple[SeveralPeople, dict[int, str]]:
    """Return the pictures of several people that the base can draw; of the others, by number of people, why not.

    In windows it can draw any number, as each shows one person.

    Raises UserError where the manifest beside the base is damaged.
    """
    from pipelines.evaluation.sampling import known_base

    asked = params.evaluate.several_people
    if params.evaluate.layout == "windows" or (known := known_base(params)) is None:
        return asked, {}
    most = known.most_people
    reason = f"the base was trained on {most} in a picture at most ({known.file.parent.name}/{known.file.name})"
    beyond = {count: reason for count, pictures in asked.pictures.items() if pictures and count > most}
    names = dict(zip(asked.pictures, type(asked).model_fields, strict=True))
    return asked.model_copy(update={names[count]: 0 for count in beyond}), beyond


def load_renderer(params: Params, adapter: Path) -> CellRenderer:
    """Return the renderer of `adapter`; raise UserError where it does not fit the base or has no IMR yet."""
    from pipelines.evaluation.sampling import CellRenderer, known_base, load_pipeline

    pipe = load_pipeline(params, adapter)
    if pipe.adapter.method.motion and not pipe.adapter.takes_face_prompts:
        raise UserError(f"{adapter}: this adapter has no IMR yet; run train_imr, which adds it")
    if params.evaluate.layout == "windows" and not pipe.in_windows:
        raise UserError(
            f"evaluate.layout=windows: {params.base.pipeline} draws several people in regions of one picture only; set "
            "evaluate.layout=regions"
        )
    # Names with an underscore are of the folder and the library that wrote it.
    configs = [part.config.items() for part in (pipe.denoiser, pipe.vae, pipe.scheduler)]
    written = [sorted((key, repr(value)) for key, value in items if not key.startswith("_")) for items in configs]
    made_of = [folder_sha256(adapter), pipe.base_fingerprint, params.base.dtype, written]
    return CellRenderer(
        pipe,
        params.evaluate,
        params.base.resolution,
        known_base(params),
        preprocess=params.preprocess,
        adapter=adapter,
        key=cache_key(made_of, "model/*.py", "model/*/*.py", "pipelines/evaluation/sampling.py"),
    )


def _shipped(params: Params) -> CellRenderer | None:
    """Return the renderer of the shipped adapter, None where it is switched off; raises as `load_renderer`."""
    if params.evaluate.shipped_adapter is None:
        return None
    try:
        return load_renderer(params, resolve(params.evaluate.shipped_adapter))
    except UserError as error:
        raise UserError(f"{error}; evaluate.shipped_adapter=null leaves the shipped adapter out") from error


def _conditions(params: Params, adapter: Path, renderer: CellRenderer, *, pictures: int) -> dict[str, Any]:
    """Return `settings` of metrics.json: what must agree before two results are compared, and facts for the report."""
    from model.network.adapter_config import WEIGHTS
    from pipelines.evaluation.sampling import SAMPLED, other_base

    settings, judges, pipe = renderer.params, params.evaluate.judges, renderer.pipe
    shipped, ways, read_by = settings.shipped_adapter, pipe.conventions, judged_by(params)
    measured = {"photos": judges.photos, "bounds": judges.bounds.model_dump(mode="json")}
    return {
        "profile": params.profile,
        "split": settings.split,
        "resolution": renderer.resolution,
        **{name: getattr(settings, name) for name in SAMPLED},
        **({} if ways.are_ours else {"conventions": ways.model_dump()}),
        "weights": "ema",  # an adapter holds the moving averages of training, not the last step's weights
        "gate_threshold": pipe.adapter.gate_threshold,
        "bootstrap": settings.bootstrap,
        "pictures": pictures,
        "adapter": sha256(adapter / WEIGHTS),
        "shipped_adapter": shipped and sha256(resolve(shipped) / WEIGHTS),
        "base": pipe.adapter.base_reference.fingerprint,
        **other_base(pipe),
        "faces": read_by["faces"],
        "judges": read_by["judges"] | measured,
    }
