"""`dynamicid blind`: sheets of shuffled pictures for human readers, and the score of their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pipelines.commands.options import (
    DEFAULT_PARAMS,
    Overrides,
    ParamsFile,
    argument,
    command_group,
    option,
    read_params,
)
from pipelines.commands.output import emit
from pipelines.core.chain import ADAPTER, PROCESSED
from pipelines.core.documents import read_object
from pipelines.core.files import sha256

app = command_group("Let people judge pictures without knowing what they show: make sheets, score the answers.")


@app.command()
def sheets(
    *,
    out: Annotated[Path, option("Folder for the sheets and their key.", metavar="DIR")],
    seed: Annotated[int, option("Random seed of the choice and order of pictures.", min=0)] = 0,
    people: Annotated[int, option("Number of people to match with their references.", min=2, max=26)] = 8,
    each: Annotated[int, option("Number of faces to name for each expression.", min=1)] = 3,
    pairs: Annotated[int, option("Number of pictures of two people, on a sheet of their own.", min=0)] = 0,
    processed: Annotated[Path, option("Preprocessed photos.")] = Path(PROCESSED),
    adapter: Annotated[Path, option("Adapter to test.")] = Path(ADAPTER),
    file: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Generate held-out people as the evaluation does and arrange them, shuffled and unlabelled, on sheets."""
    from model.network.adapter_config import WEIGHTS
    from pipelines.evaluation.blind import EXPRESSION, KEY, make_sheets, pair_sheets, write_sheets
    from pipelines.evaluation.evaluate import open_questions
    from pipelines.versions.places import SHEETS, note_copy

    params = read_params(file, overrides)
    questions, held_out, renderer = open_questions(params, processed, adapter)
    drawn = make_sheets(questions, held_out.photos, renderer, people=people, each=each, seed=seed)
    settings: dict[str, Any] = {"seed": seed, "people": people, "faces": len(drawn[EXPRESSION].answers)}
    if pairs:
        drawn |= pair_sheets(questions, held_out.photos, renderer, pairs=pairs, seed=seed)
        settings |= {"pairs": pairs, "layout": renderer.params.layout}
    sampled = {name: getattr(params.evaluate, name) for name in ("sampler", "steps", "guidance", "guidance_rescale")}
    networks = {
        "adapter": sha256(adapter / WEIGHTS),
        "base": renderer.pipe.adapter.base_reference.fingerprint,
        "resolution": params.base.resolution,
    }
    note_copy(Path.cwd(), out, SHEETS)
    write_sheets(drawn, out, {**settings, "evaluation_set": questions.hash, **sampled, **networks})
    shown = [str(out / name) for name, sheet in drawn.items() if sheet.rows]
    emit({"for_the_reader": shown, "not_for_the_reader": str(out / KEY), **settings})


@app.command()
def score(
    folder: Annotated[Path, argument("Folder that `sheets` wrote.")],
    answers: Annotated[Path, argument('JSON: {"matching": {"1": "C", …}, "expressions": {"1": "sad", …}}.')],
) -> None:
    """Compare a reader's answers with the key; print the score as JSON."""
    from pipelines.evaluation.blind import KEY
    from pipelines.evaluation.blind import score as compare

    key = read_object(folder / KEY, "`dynamicid blind sheets` writes it")
    emit(compare(key, read_object(answers, 'expected {"matching": {"1": "C", …}, "expressions": {"1": "sad", …}}')))
