"""preprocess: every photo of a dataset version is analysed, on Spark, and becomes one row of data/processed.

Three steps, of which the second takes the time: Spark finds bytes that occur more than once, from metadata alone;
workers read and analyse slices of the shards (no image is sent between processes); workers write buckets from the
slices. Rows depend on the photos and the parameters alone: not on the order or number of shards, slices or workers.

Finished slices stay in a state folder outside the output, named by their photos and the analyser version: a killed run
resumes from there, and of a later dataset version only the new photos are analysed. Runs share the folder, also at the
same time, and delete nothing in it. Like the output, it holds faces.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.core.documents import read_object
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder
from pipelines.core.formats.folders import enter_state
from pipelines.core.formats.table import SLICES
from pipelines.core.locks import hold, share
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.row_schemas import DATASET_SCHEMA, OK, REASONS, open_rows
from pipelines.core.sections.data import Preprocess
from pipelines.core.weights.domains import check_domains, network_domains
from pipelines.core.words import counted
from pipelines.data.faces.domain import domains_of_dataset
from pipelines.data.faces.timing import STEPS
from pipelines.data.faces.version import analyser_version
from pipelines.data.faces.votes import check_votes
from pipelines.data.preprocessing.buckets import plan_buckets
from pipelines.data.preprocessing.files import SLICE_SUFFIX, remove_parts
from pipelines.data.preprocessing.jobs import analyse_slices, find_finished, write_buckets
from pipelines.data.preprocessing.matches import find_earlier_rows, find_originals
from pipelines.data.preprocessing.slices import Slice, cut_slices
from pipelines.data.preprocessing.tasks import Job, SliceReport
from pipelines.data.spark import check_java, spark_context
from pipelines.versions.forgotten import refuse_forgotten
from pipelines.versions.state import LOCK, PREPROCESS, STATE


@dataclass(frozen=True)
class Inputs:
    """`faces`: a dataset folder; `verdict`: verdict.json of `validate`, or None to skip that check."""

    faces: Path
    verdict: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """`processed`: the folder of buckets, replaced as a whole; `state`: where finished slices and buckets are kept."""

    processed: Path
    state: Path = Path(STATE) / PREPROCESS


@dataclass(frozen=True)
class Report:
    """Rows in all, accepted, rejected by reason, and analysed by this run (the others come from earlier runs).

    `buckets_written`: files of the output that no earlier run had written. `seconds` is the time of analysis by step,
    summed over the workers.
    """

    rows: int
    ok: int
    rejected: dict[str, int]
    looked_at: int
    buckets_written: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Report:
    """Preprocess `inputs.faces` into `outputs.processed`.

    Raises UserError on missing networks, Java or dataset; StageFailed where the verdict is negative, or where more
    than `max_failed_share` of the rows are rejected for another reason than `duplicate`. On failure a previous output
    stays, and so do finished slices.
    """
    section = params.preprocess
    _check_verdict(inputs.verdict)
    refuse_forgotten(inputs.faces)
    shards = [Path(file).resolve() for file in sorted(open_rows(inputs.faces, DATASET_SCHEMA).files)]
    located = _located(section)
    stated, measured = domains_of_dataset(inputs.faces, section.max_pixels)
    check_domains(str(inputs.faces), network_domains(params, ("preprocess",)), stated=stated, measured=measured)
    check_votes(section)
    version = analyser_version(located)
    slices = cut_slices(shards, section.slice_photos)
    if not slices:
        raise UserError(f"{inputs.faces}: a dataset without a row; ingest photos first")
    _check_replaceable(outputs.processed)
    check_java()
    state = outputs.state.resolve()
    out = outputs.processed
    written = StageFailed(f"{out}: another preprocess run writes it; wait for it to end")
    removed = StageFailed(f"{state}: `forget` or `clean` is at work there; wait for it to end")
    with (
        # Beside the folder, not in it, since the folder's contents are versioned.
        hold(out.with_name(f".{out.name}.lock"), written),
        share(state / LOCK, removed, alone=lambda: remove_parts(state)),
    ):
        enter_state(SLICES, state)
        # In local mode the workers run the same files as this process; elsewhere they check that theirs are equal.
        job = Job(located, version, state, section, verified=not section.master.startswith("local"))
        return _run(job, shards, slices, out)


def _run(job: Job, shards: Sequence[Path], slices: Sequence[Slice], out: Path) -> Report:
    params = job.params
    started = time.monotonic()
    with spark_context(params.master, "dynamicid preprocess", params.spark) as context:
        originals = context.broadcast(find_originals(context, shards))
        ready = time.monotonic()
        reports = _analyse(context, slices, job, originals)
        analysed = time.monotonic()
        report = _report(reports, params.max_failed_share)
        with atomic_folder(out) as part:
            rows, written = write_buckets(context, plan_buckets(reports, job), params, part)
            if rows != report.rows:
                raise StageFailed(
                    f"{out}: {counted(rows, 'row')} written of {report.rows}; nothing was kept, run it again"
                )
    report = replace(report, buckets_written=written)
    _print_summary(report, ready - started, analysed - ready, time.monotonic() - analysed)
    return report


def _analyse(context: Any, slices: Sequence[Slice], job: Job, originals: Any) -> list[SliceReport]:
    """Analyse the photos that no earlier run has analysed; return the reports of all slices."""
    before = find_finished(context, slices, job, originals)
    used = {item.file for item in before if item is not None}
    earlier = sorted(str(file) for file in job.state.glob(f"*{SLICE_SUFFIX}") if str(file) not in used)
    missing = [piece for piece, item in zip(slices, before, strict=True) if item is None]
    rows = find_earlier_rows(context, missing, earlier, job, originals)
    now = iter(analyse_slices(context, missing, rows, job, originals))
    return [next(now) if item is None else item for item in before]


def _report(reports: Sequence[SliceReport], max_failed_share: float) -> Report:
    outcomes: Counter[str] = Counter()
    for item in reports:
        outcomes.update(item.outcomes)
    rows = outcomes.total()
    rejected = {reason: outcomes[reason] for reason in REASONS if outcomes[reason]}
    # Duplicates are not failures; `validate` bounds their share.
    failed = sum(rejected.values()) - rejected.get("duplicate", 0)
    if failed > max_failed_share * rows:
        counts = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        detail = next((f" ({item.detail})" for item in reports if item.detail), "")
        raise StageFailed(
            f"preprocess: {failed} of {counted(rows, 'photo')} rejected ({failed / rows:.3f} > {max_failed_share:.3f} "
            f"= preprocess.max_failed_share): {counts}{detail}"
        )
    seconds = {step: round(sum(item.seconds.get(step, 0.0) for item in reports), 3) for step in STEPS}
    return Report(rows, outcomes[OK], rejected, sum(item.analysed for item in reports), seconds=seconds)


def _located(params: Preprocess) -> Preprocess:
    """Return the parameters with absolute paths, as workers may have another working directory."""

    def absolute(section: Any, *names: str) -> dict[str, str | None]:
        paths = {name: getattr(section, name) for name in names}
        return {name: None if path is None else str(resolve(path).absolute()) for name, path in paths.items()}

    landmarker = params.landmarker.model_copy(update=absolute(params.landmarker, "path"))
    captions = params.captions.model_copy(update=absolute(params.captions, "clip_path", "internvl_path"))
    update: dict[str, Any] = {**absolute(params, "insightface_root"), "landmarker": landmarker, "captions": captions}
    for name in ("expression", "pose"):
        vote = getattr(params, name)
        networks = tuple(network.model_copy(update=absolute(network, "path")) for network in vote.networks)
        update[name] = vote.model_copy(update={"networks": networks})
    return params.model_copy(update=update)


def _check_verdict(verdict: Path | None) -> None:
    if verdict is None:
        return
    judged = read_object(verdict, "run `dynamicid validate` first")
    if judged.get("success") is False:
        raise StageFailed(f"{verdict}: the dataset was refused by validate; see its failed expectations")


def _check_replaceable(out: Path) -> None:
    """Raise UserError where the output folder holds anything but an earlier output: it is replaced as a whole."""
    others = [path.name for path in out.iterdir() if not path.match("part-*.parquet")] if out.is_dir() else []
    if others or (out.exists() and not out.is_dir()):
        raise UserError(f"{out}: would be replaced, but holds {min(others, default='a file')}; choose another --out")


def _print_summary(report: Report, preparing: float, analysing: float, writing: float) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejected.items()) or "none"
    rate = f"{report.looked_at / analysing:.1f} photos/s" if report.looked_at else "all known from before"
    print(
        f"preprocess: {counted(report.rows, 'photo')}, {report.ok} ok, rejected: {reasons}; {rate} (Spark and metadata "
        f"{preparing:.1f} s, photos {analysing:.1f} s, {counted(report.buckets_written, 'new bucket')} "
        f"{writing:.1f} s; "
        f"of the workers' time {', '.join(f'{step} {took:.1f} s' for step, took in report.seconds.items())})",
        file=sys.stderr,
    )
