"""Calibrate a recogniser on photos of known people: from which cosine on are two faces one person?"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.folders import enter_state
from pipelines.core.formats.table import CURATION
from pipelines.core.locks import hold
from pipelines.core.pages import render_page
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.row_schemas import OK, PROCESSED_SCHEMA, list_matrix, open_rows
from pipelines.core.words import counted
from pipelines.data.curation.build import STATE
from pipelines.data.curation.survey import Gate, analyse_new, check_photo_domains, list_photos, read_rows, state_folder
from pipelines.data.faces.calibration import (
    Measured,
    Rate,
    Recogniser,
    RecogniserThresholds,
    read_own,
    recogniser_of,
    write_own,
)
from pipelines.data.faces.pairs import EDGES, Pairs, accepted, count_pairs, share
from pipelines.data.spark import spark_context

PAGE, NUMBERS = "index.html", "calibration.json"
# Fewer do not show how similar the most similar strangers are: 30,000 pairs have thirty of the thousandth that counts.
LEAST_PEOPLE, LEAST_PAIRS = 20, 30_000
# A recogniser that accepts fewer pairs of one person does not know such photos, or the labels are wrong.
LEAST_ACCEPTED = 0.5
# Of more photos, those of some people are compared: all pairs of 20,000 take about a minute.
_MOST = 20_000
# Pictures embedded again, to see whether they are this recogniser's; their median cosine to what is stored.
_CHECKED, _LEAST_COSINE = 8, 0.5


@dataclass(frozen=True)
class Inputs:
    """`data`: data/processed, or photos whose `identity_depth` leading folders name a person; `gate` as curation's."""

    data: Path
    identity_depth: int = 1
    gate: Gate | None = None


@dataclass(frozen=True)
class Outputs:
    """`report`: the folder of the page and its numbers; `root`: the checkout whose calibrations are written."""

    report: Path
    root: Path
    state: Path = STATE


@dataclass(frozen=True)
class Report:
    """The recogniser's fingerprint and what was measured, as `calibrations.yaml` holds it."""

    recogniser: str
    thresholds: dict[str, Any]


def run(params: Params, inputs: Inputs, outputs: Outputs) -> Report:
    """Measure the recogniser of `params` on `inputs.data`; write its thresholds, the page and the numbers.

    Raises UserError where there are too few people or pairs, or the rows are another recogniser's; StageFailed where
    the recogniser cannot tell these people apart. Then nothing is written.
    """
    recogniser = recogniser_of(params.preprocess, outputs.root)
    own = read_own(outputs.root)
    if any(inputs.data.glob("*.parquet")):
        embeddings, names = _processed(params, inputs.data)
    else:
        embeddings, names = _photos(params, inputs, outputs.state)
    people, person = np.unique(names, return_inverse=True)
    if len(person) > _MOST:
        kept = np.cumsum(np.bincount(person))[person] <= _MOST
        embeddings, names = embeddings[kept], names[kept]
        people, person = np.unique(names, return_inverse=True)
    _check_enough(inputs.data, person)
    pairs = count_pairs(embeddings, person)
    thresholds = _thresholds(recogniser, pairs, embeddings, person)
    accepts = thresholds.measured.true_accepts.value if thresholds.measured else 0.0
    if accepts < LEAST_ACCEPTED:
        raise StageFailed(
            f"{inputs.data}: the recogniser {recogniser} cannot tell these {len(people)} people apart: at one false "
            f"pair in ten thousand it accepts {accepts:.3f} < {LEAST_ACCEPTED} of one person's pairs; are the names "
            "right, and does the network know such pictures (drawn, photographs)? Nothing was written"
        )
    document = {"recogniser": recogniser.fingerprint, **thresholds.model_dump(exclude_none=True)}
    write_atomically(outputs.report / NUMBERS, json.dumps(document, indent=2) + "\n")
    page = render_page(Path(__file__).with_name("calibration.html.j2"), plot=_plot(pairs, thresholds), **document)
    write_atomically(outputs.report / PAGE, page)
    update = {"recognisers": {**own.recognisers, recogniser.fingerprint: thresholds}}
    write_own(outputs.root, own.model_copy(update=update))
    return Report(recogniser.fingerprint, thresholds.model_dump(mode="json", exclude_none=True))


def _processed(params: Params, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings (N, 512) and names of the accepted photos that show one known person."""
    columns = ["image_id", "identity", "n_faces", "status", "embedding"]
    rows = open_rows(folder, PROCESSED_SCHEMA).to_table(columns=columns, filter=pc.field("status") == OK)
    rows = rows.filter(pc.and_(rows["identity"].is_valid(), pc.equal(rows["n_faces"], 1)))
    _check_made_by(params, folder)
    return list_matrix(rows["embedding"], 512, np.float32), np.array(rows["identity"].to_pylist(), object)


def _check_made_by(params: Params, folder: Path) -> None:
    """Raise UserError unless the recogniser that `params` names embeds some of the stored pictures as the rows say."""
    import cv2

    from pipelines.data.faces.insightface_analyser import InsightFaceAnalyser, pack_folder

    section = params.preprocess
    columns = ["image", "keypoints", "embedding"]
    rows = open_rows(folder, PROCESSED_SCHEMA).head(_CHECKED, columns=columns, filter=pc.field("status") == OK)
    pack = InsightFaceAnalyser(pack_folder(section.insightface_name, resolve(section.insightface_root)))
    decoded = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in rows["image"].to_pylist()]
    pictures = [np.ascontiguousarray(image[..., ::-1]) for image in decoded if image is not None]
    found = pack.embed(pictures, list(list_matrix(rows["keypoints"], 10).reshape(-1, 5, 2)))
    cosines = np.einsum("ij,ij->i", found, list_matrix(rows["embedding"], found.shape[1]))
    if len(cosines) and not np.median(cosines) >= _LEAST_COSINE:
        raise UserError(
            f"{folder}: its embeddings are not those of the recogniser of {section.insightface_name} (median cosine "
            f"{np.median(cosines):.2f} over {counted(len(cosines), 'photo')}); run preprocess with it first, or give "
            "its photos"
        )


def _photos(params: Params, inputs: Inputs, state: Path) -> tuple[np.ndarray, np.ndarray]:
    """Analyse a folder of photos as curation does; return the embeddings and names of those that show one face."""
    source = list_photos(inputs.data, inputs.identity_depth, params.ingest.max_file_mb * 2**20, inputs.gate)
    # Too few photos are refused before any is analysed.
    labels = [photo.labels.identity for photo in source.photos.values() if photo.labels.identity is not None]
    _check_enough(inputs.data, np.unique(np.array(labels, object), return_inverse=True)[1])
    check_photo_domains(params, inputs.data, source)
    with hold(state / ".lock", UserError(f"{state}: another curate run uses this folder; wait until it ends")):
        enter_state(CURATION, state)
        folder = state_folder(params, state, inputs.data).resolve()
        with spark_context(params.preprocess.master, "dynamicid calibrate", params.preprocess.spark) as context:
            analyse_new(source, params, folder, context)
        rows = read_rows(source, folder)
    rows = rows.filter(pc.and_(rows["reason"].is_null(), pc.equal(rows["n_faces"], 1)))
    names = [source.photos[name].labels.identity for name in rows["file_name"].to_pylist()]
    known = np.array([name is not None for name in names], bool)
    first = ~rows["image_id"].to_pandas().duplicated().to_numpy() & known
    return list_matrix(rows["embedding"], 512, np.float32)[first], np.array(names, object)[first]


def _check_enough(data: Path, person: np.ndarray) -> None:
    photos = np.bincount(person) if len(person) else np.zeros(1, int)
    several = int((photos >= 2).sum())
    pairs = int((len(person) ** 2 - (photos**2).sum()) // 2)
    if several < LEAST_PEOPLE or pairs < LEAST_PAIRS:
        raise UserError(
            f"{data}: {counted(several, 'known person', 'known people')} with two photos and more, "
            f"{counted(pairs, 'pair')} of two people's photos; a calibration needs {LEAST_PEOPLE} and {LEAST_PAIRS:,} "
            "(about 250 photos, one face each). Photos of other people will do: the threshold is the recogniser's, not "
            "the data's"
        )


def _thresholds(
    recogniser: Recogniser, pairs: Pairs, embeddings: np.ndarray, person: np.ndarray
) -> RecogniserThresholds:
    similarity = round(pairs.threshold, 3)
    counts = accepted(embeddings, person, similarity)
    same = round(pairs.typical, 3)

    def rate(count: np.ndarray, of: np.ndarray) -> Rate:
        return Rate(**dict(zip(("value", "low", "high"), (round(one, 6) for one in share(count, of)), strict=True)))

    return RecogniserThresholds(
        network=recogniser.pack,
        similarity=similarity,
        same=same,
        excess=round(pairs.tail[1], 4),
        copies=round((1 + same) / 2, 3),
        # A recogniser that tells people apart worse than its photos of one person differ has no lower bound than this.
        doubtful=round(min(max(pairs.doubtful, 0.01), similarity), 3),
        measured=Measured(
            people=int(person.max()) + 1,
            photos=len(person),
            same_pairs=int(pairs.same.sum()),
            other_pairs=int(pairs.other.sum()),
            false_accepts=rate(counts.other_accepted, counts.other),
            true_accepts=rate(counts.same_accepted, counts.same),
        ),
    )


def _plot(pairs: Pairs, thresholds: RecogniserThresholds) -> str:
    """Return both histograms, with the threshold, as SVG; equal numbers give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dynamicid", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(8, 3))
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        for counts, label, colour in ((pairs.other, "two people", "#c2552d"), (pairs.same, "one person", "#2563a8")):
            # A hundred bars, each of which sums up bins.
            heights = counts.reshape(100, -1).sum(1) / max(counts.sum(), 1)
            axes.stairs(heights, EDGES[:: len(counts) // 100], fill=True, alpha=0.6, color=colour, label=label)
        axes.axvline(thresholds.similarity, color="#1f2933", linewidth=1)
        axes.set_xlim(-0.5, 1)
        axes.set_xlabel("cosine of two photos")
        axes.set_ylabel("share of pairs")
        axes.legend(frameon=False)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return text.getvalue()
