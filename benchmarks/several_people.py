"""Pictures of several people in regions and in windows: what each layout reaches, on the people of a split.

    dynamicid synthesize --seed 7 --identities 60 --out .dynamicid/several
    dynamicid configure --profile tiny --set preprocess.val_share=0.7 --set preprocess.test_share=0.1
    dynamicid ingest .dynamicid/several --out data/faces
    dynamicid repro validate preprocess
    python benchmarks/several_people.py --two 60 --three 30 --four 20

Run it in a checkout whose data/processed has the people. `--set` changes parameters of both layouts, such as
`evaluate.boost=0`. Every layout draws the same cells from the same noise. Intervals are over people: each has the mean
of the pictures that they are in. The last line is JSON; `--sheet` writes pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import print_report, rounded
from pipelines.core.params import Params, load_params

ADAPTER = Path("model/foundation/weights/adapter")
_BATCH, _RESAMPLES, _SHOWN = 20, 1000, 20


def measure(params: Params, adapter: Path, processed: Path, variants: Sequence[str], sheet: Path | None) -> Any:
    """Return every metric of several people with its interval, by variant, and write some of the model's pictures."""
    from pipelines.evaluation.evaluate import open_questions
    from pipelines.evaluation.intervals import bootstrap, mean_over_people, means_by_person, resample
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.multi_scoring import columns_of, score_several
    from pipelines.evaluation.plan import multi_cells_of, multi_spec_of
    from pipelines.evaluation.scoring import Gallery

    questions, held_out, renderer = open_questions(params, processed, adapter)
    reader, photos = load_judges(params).faces, questions.photo_ids()
    read = reader.known([held_out.photos[photo] for photo in photos])
    gallery = Gallery.of(questions, dict(zip(photos, read.embeddings, strict=True)))
    tokens, people = renderer.tokens(questions, held_out.photos), len(questions.people)
    weights = resample(people, _RESAMPLES, 0)
    found: dict[str, Any] = {"people": people}
    for variant in variants:
        numbers = multi_cells_of(questions, variant)
        faces: dict[int, Any] = {}
        images: list[np.ndarray] = []
        specs = {number: multi_spec_of(questions, tokens, variant, number) for number in numbers}
        for start in range(0, len(numbers), _BATCH):
            part = numbers[start : start + _BATCH]
            drawn = [one.image for one in renderer.draw([specs[number] for number in part])]
            faces |= dict(zip(part, reader.all_faces(drawn), strict=True))
            images += drawn
        scored = {number: one.score for number, one in score_several(questions, faces, gallery).items()}
        found[variant] = {}
        for name, values in columns_of(questions, scored).items():
            count = next((int(end) for end in ("3", "4") if name.endswith(f"_{end}")), 2)
            cells = [questions.multi_cells[number].people for number in questions.multi_of(count)]
            spread = np.repeat(values, [len(cell) for cell in cells])
            means = means_by_person(spread, np.array([one for cell in cells for one in cell]), people)
            if not np.isnan(means).all():
                found[variant][name] = bootstrap(mean_over_people(means), weights).plain()
        if sheet is not None and variant == "model":
            write_sheet(images, sheet)
    return found


def write_sheet(images: Sequence[np.ndarray], file: Path) -> None:
    """Write the first pictures of every width, a row for each five."""
    from PIL import Image

    rows: list[np.ndarray] = []
    for width in dict.fromkeys(image.shape[1] for image in images):
        same = [image for image in images if image.shape[1] == width][:_SHOWN]
        rows += [np.concatenate(same[start : start + 5], 1) for start in range(0, len(same) // 5 * 5, 5)]
    wide = max((row.shape[1] for row in rows), default=1)
    padded = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    if padded:
        Image.fromarray(np.concatenate(padded)).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layouts", default="regions,windows", help="comma-separated")
    parser.add_argument("--variants", default="model,text_only,without_gate,without_imr,true_tokens")
    for name, count in (("two", 60), ("three", 30), ("four", 20)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"pictures of {name} people")
    parser.add_argument("--split", default="val", choices=("val", "test"), help="settings are chosen on val")
    parser.add_argument("--people", type=int, default=40, help="at most so many people")
    parser.add_argument("--seed", type=int, default=0, help="seed of people, cells and noise")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--processed", type=Path, default=Path("data/processed"))
    parser.add_argument("--sheet", type=Path, help="folder for pictures")
    parser.add_argument("--out", type=Path, help="also write the JSON, indented, to this file")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    for layout in options.layouts.split(","):
        own = {"layout": layout, "split": options.split, "people": options.people, "seed": options.seed}
        counts = {f"several_people.{name}": getattr(options, name) for name in ("two", "three", "four")}
        changes = [f"evaluate.{key}={value}" for key, value in (own | counts).items()]
        params = load_params(options.params, [*changes, *options.changes])
        sheet = None if options.sheet is None else options.sheet / f"{layout}.png"
        report[layout] = measure(params, options.adapter, options.processed, options.variants.split(","), sheet)
        print(f"{layout}: {report[layout]}", file=sys.stderr, flush=True)
    print_report(rounded(report), options.out)


if __name__ == "__main__":
    main()
