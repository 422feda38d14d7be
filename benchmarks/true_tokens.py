"""Measure anchoring without the IMR: render held-out people from tokens of their photos in the requested cell.

A cell is a combination of expression and pose. Cells, prompts and noise are the same for every adapter, so differences
are more precise than values. With `--others embedding` or `--others crop`, another person's photo, if possible in the
same cell, gives that input of the face encoder: remaining identity comes from the other input. The last line is JSON.

    python benchmarks/true_tokens.py models/anchoring model/foundation/weights/adapter
    python benchmarks/true_tokens.py models/anchoring --others crop
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.core.chain import PROCESSED

_EXAMPLES = 16
_METRICS = ("own_over_other", "expression_accuracy", "pose_accuracy")


def main(
    adapters: Annotated[list[Path], typer.Argument(help="Adapter folders, with or without IMR.")],
    *,
    processed: Annotated[Path, typer.Option(help="Processed photos.")] = Path(PROCESSED),
    params_file: Annotated[Path, typer.Option("--params", help="Parameter file.")] = Path("params.yaml"),
    people: Annotated[int, typer.Option(help="Held-out people, at most.", min=2)] = 40,
    pictures: Annotated[int, typer.Option(help="Pictures of each adapter, at most.", min=2)] = 84,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the choice of cells.", min=0)] = 5,
    split: Annotated[str, typer.Option(help="Split of the people; settings are chosen on val.")] = "val",
    others: Annotated[str | None, typer.Option(help="Input from another person: embedding or crop.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="File for the photos, each with its picture below it.")] = None,
) -> None:
    """Generate with every adapter; print `id_similarity` on its scale (s), own_over_other, expression and pose."""
    import numpy as np

    from pipelines.core.params import load_params
    from pipelines.evaluation import ceiling_and_floor
    from pipelines.evaluation.evaluation_set import build_evaluation_set
    from pipelines.evaluation.judge_loading import load_judges
    from pipelines.evaluation.photos import held_out_records, read_photos
    from pipelines.evaluation.prompts import load_prompts
    from pipelines.evaluation.scoring import Gallery, score_faces

    if others not in (None, "embedding", "crop"):
        raise typer.BadParameter(f"--others {others}: expected embedding or crop")
    params = load_params(params_file)
    changed = {"people": people, "seeds": 1, "diversity_seeds": 1, "steps": steps}
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changed)})
    face_reader = load_judges(params).faces
    records = held_out_records(processed, params.rights, split)
    questions = build_evaluation_set(records, params.evaluate, load_prompts(params.evaluate.scenes))
    ids = questions.photo_ids()
    photos = read_photos(processed, records, ids).photos
    real = face_reader.known([photos[name] for name in ids])
    rows = {name: row for row, name in enumerate(ids)}
    gallery = Gallery.of(questions, {name: real.embeddings[row] for name, row in rows.items()})
    with_photo = list(ceiling_and_floor.true_photos(questions))
    rng = np.random.default_rng(seed)
    cells = sorted(rng.choice(with_photo, min(pictures, len(with_photo)), replace=False).tolist())
    pairs = [
        (photos[questions.cells[number].true_photo or ""], photos[_other_person(questions, with_photo, number)])
        for number in cells
    ]

    def mean(columns: Any, metric: str) -> float:
        return float(np.nanmean(columns[metric]))

    floor = mean(ceiling_and_floor.floor(questions, gallery).columns, "id_similarity")
    ceiling = mean(ceiling_and_floor.ceiling(questions, real, rows, gallery).columns, "id_similarity")
    prompts = [(questions.prompt_of(questions.cells[number]).text, questions.cells[number].noise) for number in cells]
    results: dict[str, dict[str, float]] = {}
    for adapter in adapters:
        generated = _generate(params, adapter, prompts, pairs, others)
        columns = score_faces(questions, cells, face_reader.single(generated), gallery)
        results[str(adapter)] = {
            "s": round((mean(columns, "id_similarity") - floor) / (ceiling - floor), 3),
            **{name: round(mean(columns, name), 3) for name in _METRICS},
        }
        print(adapter, results[str(adapter)])
        if sheet is not None:
            _save_sheet([photo.image for photo, _ in pairs], generated, sheet)
    print(json.dumps({"pictures": len(cells), "people": len(questions.people), "others": others, "adapters": results}))


def _other_person(questions: Any, with_photo: list[int], number: int) -> str:
    """Return another person's photo with the expression and pose of cell `number`, or with any if there is none."""
    cell = questions.cells[number]
    wanted = (cell.expression, cell.pose)
    others = [questions.cells[other] for other in with_photo if questions.cells[other].person != cell.person]
    distance = {other: (other.person - cell.person) % len(questions.people) for other in others}
    return str(min(others, key=lambda one: ((one.expression, one.pose) != wanted, distance[one])).true_photo)


def _generate(
    params: Any, adapter: Path, prompts: list[tuple[str, int]], pairs: list[tuple[Any, Any]], others: str | None
) -> list[Any]:
    """Return pictures of `prompts` (text, noise), from the tokens of `pairs` (photo, another person's photo)."""
    import torch

    from model.inference.pipeline import pipeline_class
    from pipelines.core.paths import resolve
    from pipelines.data.faces.face_inputs import FaceInputs
    from pipelines.evaluation.plan import PictureSpec
    from pipelines.evaluation.sampling import CellRenderer

    base = resolve(params.base.pipeline)
    pipe = pipeline_class(base).from_folders(
        base, resolve(params.base.image_encoder), adapter, dtype=getattr(torch, params.base.dtype), device="cpu"
    )
    pipe.fold_lora()
    inputs = FaceInputs(pipe.crop_size, pipe.conventions, params.preprocess)
    faces = [photo.face(inputs) for photo, _ in pairs]
    if others is not None:
        strangers = [photo.face(inputs) for _, photo in pairs]
        faces = [replace(face, **{others: getattr(one, others)}) for face, one in zip(faces, strangers, strict=True)]
    tokens = pipe.tokens_of([[face] for face in faces]).float().cpu().numpy()
    renderer = CellRenderer(pipe, params.evaluate, params.base.resolution)
    specs = [PictureSpec(text, noise, tokens=one) for (text, noise), one in zip(prompts, tokens, strict=True)]
    return [one.image for one in renderer.draw(specs)]


def _save_sheet(photos: list[Any], pictures: list[Any], file: Path) -> None:
    """Write the first photos with the pictures from their tokens below them."""
    import numpy as np
    from PIL import Image

    small = [[Image.fromarray(image).resize((128, 128)) for image in row[:_EXAMPLES]] for row in (photos, pictures)]
    Image.fromarray(np.vstack([np.hstack([np.asarray(image) for image in row]) for row in small])).save(file)


if __name__ == "__main__":
    typer.run(main)
