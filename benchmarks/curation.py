"""Measure how well `dynamicid curate` groups unnamed photos by person, without any threshold given: pairwise F1.

The last line is JSON.

    python benchmarks/curation.py [--shared ../shared] [--procedural DIR] [--identities 200]

`--shared` has real photos and networks in `photos`, `faces_labelled` and `weights`. Procedural people are rendered into
DIR if they are not there yet. Only the largest face of a photo counts; a face that curation rejected is a group of one.
`of_five_photos`: people with so many and more. `of_somebody_else`: selected photos of another person than most of their
group.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow.parquet as pq
from sklearn.metrics.cluster import pair_confusion_matrix

from benchmarks.real_networks import SHARED, TINY, real_networks
from pipelines.core.params import Params, load_params
from pipelines.data.curation.build import TABLE, Inputs, Outputs, run
from pipelines.data.synthetic.dataset import write_dataset

FREQUENT = 5


def agreement(curated: dict[str, str | None], known: dict[str, str]) -> dict[str, float]:
    """Return precision and recall of the pairs of photos that curation assigns to one person, and their F1."""
    # A photo that curation assigns to no person is in no pair.
    labels = [curated.get(file) or f"nobody: {file}" for file in known]
    (_, wrong), (missed, both) = pair_confusion_matrix(list(known.values()), labels)
    precision = both / (both + wrong) if both + wrong else 1.0
    recall = both / (both + missed) if both + missed else 1.0
    return {"precision": precision, "recall": recall, "f1": 2 * both / max(2 * both + wrong + missed, 1)}


def measure(name: str, source: Path, known: dict[str, str], params: Params, work: Path) -> dict[str, Any]:
    started = time.monotonic()
    report = run(params, Inputs(source), Outputs(work / name, work / "state"))
    columns = ["file_name", "face_index", "identity", "selected_file"]
    rows = pq.read_table(work / name / TABLE, columns=columns).to_pylist()
    curated = {row["file_name"]: row["identity"] for row in rows if row["face_index"] == 0}
    sizes = Counter(known.values())
    frequent = {file: who for file, who in known.items() if sizes[who] >= FREQUENT}
    selected: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["selected_file"] is not None and row["file_name"] in known:
            selected[row["identity"]].append(known[row["file_name"]])
    figures: dict[str, Any] = {
        "photos": len(known),
        "people": len(sizes),
        **agreement(curated, known),
        "of_five_photos": agreement(curated, frequent),
        "selected": sum(map(len, selected.values())),
        "of_somebody_else": sum(len(group) - max(Counter(group).values()) for group in selected.values()),
    }
    print(f"{name}: {json.dumps(figures)} in {time.monotonic() - started:.0f} s; {asdict(report)}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--procedural", type=Path, default=Path(".dynamicid/photos-curation"))
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--only", choices=("lfw10", "real", "labelled", "procedural"))
    options = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="curation-") as folder:
        if options.shared.is_dir() and options.only != "procedural":
            shared = options.shared.resolve()
            with (shared / "photos/MANIFEST.csv").open(newline="") as file:
                known = {row["file"]: row["identity"] for row in csv.DictReader(file) if row["identity"]}
            lfw = {name.removeprefix("lfw10_krasserm/"): who for name, who in known.items() if "lfw10_" in name}
            params = load_params(TINY, real_networks(shared))
            if options.only in (None, "lfw10"):
                figures["lfw10"] = measure("lfw10", shared / "photos/lfw10_krasserm", lfw, params, Path(folder))
            if options.only in (None, "real"):
                figures["real"] = measure("real", shared / "photos", known, params, Path(folder))
            if options.only in (None, "labelled"):
                with (shared / "faces_labelled/labels.csv").open(newline="") as file:
                    named = {row["file"]: f"{row['set']} {row['person']}" for row in csv.DictReader(file)}
                figures["labelled"] = measure("labelled", shared / "faces_labelled", named, params, Path(folder))
        if options.only in (None, "procedural"):
            write_dataset(options.identities, options.procedural)
            photos = sorted(options.procedural.glob("person_*/*.jpg"))
            known = {file.relative_to(options.procedural).as_posix(): file.parent.name for file in photos}
            figures["procedural"] = measure("procedural", options.procedural, known, load_params(TINY), Path(folder))
    print(json.dumps({name: round(figure["f1"], 4) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
