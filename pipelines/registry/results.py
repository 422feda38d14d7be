"""The result of a stage, as it lies in the checkout: what made it, shown by `dvc.lock` or by the result's own record.

Every command that takes files of the checkout for a result asks `result_of`. Where `dvc.lock` knows the files by their
hashes, it says what made them. After a stage was called by hand it does not: then the records that trainings and
evaluations write into their results must say so, and fit each other. Anything else is refused by name. Parameters are
never those of params.yaml, which may have changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.core.chain import ADAPTER, ANCHORING, FACES, METRICS, PROCESSED, REPORT, stage_names, stages
from pipelines.core.errors import StageFailed
from pipelines.core.params import PARAMS, Params, changes, check_params, read_tree
from pipelines.evaluation.belonging import (
    MADE_BY,
    check_figures,
    check_report,
    check_training_reports,
    read_document,
    record_of,
)
from pipelines.versions.lock import (
    LOCK,
    dataset_of,
    differing,
    hashes,
    lock_entry,
    lock_hash,
    parameters,
    present_hashes,
    read_lock,
)

_TRAINED = {"train_anchoring": ANCHORING, "train_imr": ADAPTER}


@dataclass(frozen=True)
class StageResult:
    """What made the present result of a stage.

    `params` has the stage's sections (only those that `dvc.lock` or the record has), `profile` is None where it is
    unknown, `outputs` maps paths to DVC's hashes. `key` identifies the result: the sha256 (hex) of its entry in
    `dvc.lock`, or of its record where it was made `by_hand`. `dataset_md5` is DVC's hash of the dataset behind it,
    `changed_code` the code and networks of the stage that are no longer those that made it.
    """

    stage: str
    params: dict[str, Any]
    profile: str | None
    outputs: dict[str, str]
    key: str
    by_hand: bool
    dataset_md5: str | None
    changed_code: tuple[str, ...] = ()


def result_of(root: Path, stage: str, beside: Collection[str] = ()) -> StageResult:
    """Return what made the present result of `stage`.

    `beside`: results of other stages that the caller reads, too, such as the adapter beside its metrics; those that
    `stage` read must be the present ones. Raises UserError where the stage has not been run, StageFailed where files do
    not belong together or nothing says what made them.
    """
    entry = read_lock(root).get(stage)
    recorded = stage in _TRAINED or stage == "evaluate"
    if entry is None and not (recorded and _main_file(root, stage).is_file()):
        lock_entry(root, stage)  # says what is missing
    problems = [f"{LOCK} has no entry for {stage}"]
    if entry is not None:
        read = {path: md5 for path, md5 in hashes(entry, "deps").items() if path in beside}
        # Files that are missing cannot be taken for others; a recorder reads nothing of the processed photos.
        problems = differing(root, hashes(entry, "outs") | read, missing_ok={PROCESSED, *read})
        if not problems:
            return _from_lock(root, stage, entry)
    if not recorded or any("is missing" in line for line in problems):
        raise StageFailed(
            f"{'; '.join(problems)}: this is not the result of {stage} that {LOCK} describes, and it does not say "
            f"what made it; `dynamicid repro {stage}` makes it again"
        )
    return _evaluated_by_hand(root, problems) if stage == "evaluate" else _trained_by_hand(root, stage)


def results_of(root: Path) -> list[StageResult]:
    """Return the results of all stages, in the order of the chain, if they are one result, each made from the others.

    Raises as `result_of`, and StageFailed where two stages were run with different values of one parameter.
    """
    every = {path for stage in stages() for path in stage.outputs}
    # The last stage first: its metrics and adapter are what people mix up.
    results = [result_of(root, name, every) for name in reversed(stage_names())][::-1]
    _check_parameters(results)
    return results


def parameters_of(results: Sequence[StageResult], present: Params) -> tuple[Params, list[str]]:
    """Return `present` with the parameters that made the results, and a description of each that differs.

    Raises UserError where a result was made with parameters that this version does not read.
    """
    tree = present.model_dump(mode="json", by_alias=True)
    before = json.loads(json.dumps(tree))
    for result in results:
        for section, values in result.params.items():
            tree[section] = {**tree[section], **values}
        tree["profile"] = result.profile or tree["profile"]
    params = check_params(tree, LOCK)
    made = params.model_dump(mode="json", by_alias=True)
    return params, [f"{key} {value!r}, made with {there!r}" for key, value, there in changes(before, made)]


def _check_parameters(results: Sequence[StageResult]) -> None:
    made: dict[str, tuple[str, Any]] = {}
    for result in results:
        for section, values in result.params.items():
            other, before = made.setdefault(section, (result.stage, values))
            shared = {key: before[key] for key in before if key in values}
            differing_values = changes(shared, {key: values[key] for key in shared}, section)
            if differing_values:
                key, first, second = differing_values[0]
                raise StageFailed(
                    f"{other} was run with {key} {first!r}, {result.stage} with {second!r}: they are not one result; "
                    "`dynamicid repro` runs the stages again that need it"
                )


def _from_lock(root: Path, stage: str, entry: dict[str, Any]) -> StageResult:
    dataset = dataset_of(root, stage)
    results = {FACES, *(path for one in stages() for path in one.outputs)}
    made = {path: md5 for path, md5 in hashes(entry, "deps").items() if path not in results}
    present = present_hashes(root, made)
    profile = None
    if stage == "evaluate" and (root / METRICS).is_file():
        profile = read_document(root / METRICS).get("settings", {}).get("profile")
    elif stage in _TRAINED and _main_file(root, stage).is_file():
        profile = (record_of(root / _TRAINED[stage]) or {}).get("profile")
    return StageResult(
        stage,
        parameters(entry),
        profile,
        hashes(entry, "outs"),
        lock_hash(root, stage),
        by_hand=False,
        dataset_md5=dataset,
        changed_code=tuple(path for path, md5 in made.items() if present.get(path) != md5),
    )


def _trained_by_hand(root: Path, stage: str) -> StageResult:
    adapter = root / _TRAINED[stage]
    reports = {name: root / "reports" / stage / name for name in ("losses.csv", "metrics.json")}
    own = record_of(adapter)
    if own is not None and own["stage"] != stage:
        raise StageFailed(f"{adapter}: made by {own['stage']}, expected {stage}; `dynamicid repro {stage}` makes it")
    record = check_training_reports(adapter, stage, reports)
    _check_photos(root, stage, record)
    if stage == "train_imr" and (root / ANCHORING).is_dir():
        from model.training.encode import folder_digest

        present, read = folder_digest(root / ANCHORING), record["inputs"]["anchoring"]
        if present != read:
            raise StageFailed(
                f"{adapter} was trained on the anchoring {read[:12]}, {ANCHORING} is {present[:12]}: they are not one "
                "result; `dynamicid train-imr` or `dynamicid repro train_imr` trains on this one"
            )
    paths = [_TRAINED[stage], *(file.relative_to(root).as_posix() for file in reports.values())]
    result = _by_hand(root, stage, record, record["profile"], paths)
    # A record names the method only where it is not DynamicID.
    named = {"method": "dynamicid"} if stage == "train_anchoring" else {}
    return replace(result, params={**result.params, stage: named | result.params[stage]})


def _check_photos(root: Path, stage: str, record: dict[str, Any]) -> None:
    """Raise StageFailed unless the training read the photos of `data/processed`, and these are a result of DVC."""
    from pipelines.core.sections.data import Rights
    from pipelines.data.training_data import permitted_photos

    result_of(root, "preprocess")
    rights = Rights.model_validate(record["params"]["rights"])
    photos = permitted_photos(root / PROCESSED, ("train", "val"), rights)
    for split in photos:
        present = photos[split].photos.digest()
        if present != record["inputs"][split]:
            raise StageFailed(
                f"{stage} was run on photos {record['inputs'][split][:12]} of split {split}, {PROCESSED} has "
                f"{present[:12]}: they are not one result; `dynamicid repro {stage}` trains on these"
            )


def _evaluated_by_hand(root: Path, problems: Sequence[str]) -> StageResult:
    from pipelines.evaluation.evaluate import photos_digest

    metrics = root / METRICS
    document = read_document(metrics)
    record = document.get(MADE_BY)
    if record or document.get("settings", {}).get("adapter"):
        check_figures(document, metrics, root / ADAPTER)
    if record is None:
        raise StageFailed(
            f"{'; '.join(problems)}: {METRICS} does not say what made it; `dynamicid repro evaluate` makes it again"
        )
    check_report(root / REPORT, metrics)
    result_of(root, "preprocess")
    params = check_params({**read_tree(root / PARAMS), **record["params"]}, METRICS)
    present = photos_digest(params, root / PROCESSED)
    if present != record["inputs"]["photos"]:
        raise StageFailed(
            f"{METRICS}: made on the photos {record['inputs']['photos'][:12]}, {PROCESSED} has {present[:12]}: they "
            "are not one result; `dynamicid repro evaluate` evaluates on these"
        )
    result = _by_hand(root, "evaluate", record, document["settings"].get("profile"), [METRICS, REPORT])
    # A record names the protocol only where it is not this project's own.
    evaluated = {"protocol": "ours", **result.params["evaluate"]}
    return replace(result, params={**result.params, "evaluate": evaluated})


def _by_hand(root: Path, stage: str, record: dict[str, Any], profile: str | None, paths: Sequence[str]) -> StageResult:
    outputs = present_hashes(root, paths)
    text = json.dumps({"record": record, "outputs": outputs}, sort_keys=True)
    return StageResult(
        stage,
        record["params"],
        profile,
        outputs,
        hashlib.sha256(text.encode()).hexdigest(),
        by_hand=True,
        dataset_md5=result_of(root, "preprocess").dataset_md5,
    )


def _main_file(root: Path, stage: str) -> Path:
    return root / METRICS if stage == "evaluate" else root / _TRAINED[stage] / "config.json"
