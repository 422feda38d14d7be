"""`dynamicid dataset browse` and `dynamicid dataset diff`: pages that show rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, argument, option, read_params
from pipelines.commands.output import emit, emit_if_asked, say
from pipelines.core.chain import EXPECTATIONS, FACES, PROCESSED
from pipelines.core.errors import UserError
from pipelines.core.words import counted

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from pipelines.data.browsing.difference import RowChange
    from pipelines.data.browsing.page import Card
    from pipelines.data.export.rows import Selection

Sample = Annotated[int, option("At most this many rows, drawn at random from all that fit.", metavar="N", min=1)]
_VALIDATE, _VALIDATE_PROCESSED = "validate", "validate_processed"


def browse(
    *,
    sample: Sample = 400,
    where: Annotated[
        list[str] | None,
        option("Only rows with this value, such as reason=no_face; repeatable.", metavar="COLUMN=VALUE"),
    ] = None,
    failing: Annotated[
        str | None, option("Only rows that fail this expectation, as Data Docs name it.", metavar="STAGE.NAME")
    ] = None,
    seed: Annotated[int, option("Another sample.")] = 0,
    out: Annotated[Path | None, option("File to write. Default: reports/browse/….html", metavar="FILE")] = None,
    processed: Annotated[Path, option("Preprocessed rows.", metavar="DIR")] = Path(PROCESSED),
    faces: Annotated[Path, option("Dataset, for the pictures of rejected rows.", metavar="DIR")] = Path(FACES),
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Write a page of processed rows: pictures with box and landmarks, labels, filters and a search, in one file.

    What `export --permitted` leaves out is not on it.
    """
    from pipelines.core.row_schemas import DATASET_SCHEMA, PROCESSED_SCHEMA, open_rows
    from pipelines.data.browsing.page import dataset_cards, processed_cards, write_page
    from pipelines.data.browsing.rows import choose
    from pipelines.versions.older import warn_if_older

    warn_if_older(Path.cwd(), processed)
    given = read_params(params, overrides)
    among = None if failing is None else _failing(failing, given, faces, processed)
    of_faces = failing is not None and failing.startswith(f"{_VALIDATE}.")
    folder, schema = (faces, DATASET_SCHEMA) if of_faces else (processed, PROCESSED_SCHEMA)
    files = open_rows(folder, schema).files
    wanted = _permitted(given, folder)
    wanted.ask(folder, schema)
    if not of_faces and any(faces.rglob("*.parquet")):
        # What a photo states that came again since then.
        wanted.ask(faces, DATASET_SCHEMA)
    found = choose(
        files,
        schema,
        wanted,
        sample=sample,
        where=_pairs(where or []),
        among=None if among is None else among[0],
        seed=seed,
    )
    protects = [] if among is None else [f"They fail {failing}: {among[1]}"]
    file = _noted(out, failing or "index")
    shown = dataset_cards(files, found.positions) if of_faces else processed_cards(files, found.positions, faces)
    write_page(file, f"Rows of {folder}", shown, of=found.of, left_out=wanted.left_out, notes=protects)
    _report(file, f"{len(shown):,} of {counted(found.of, 'row')}", wanted.left_out)
    emit_if_asked({"file": str(file), "rows": len(shown), "of": found.of, "left_out": dict(wanted.left_out)})


def diff(
    before: Annotated[str, argument("A version such as faces-v1.", metavar="TAG")],
    after: Annotated[str, argument("Another version, or latest.", metavar="TAG")],
    *,
    sample: Sample = 100,
    out: Annotated[Path | None, option("File to write. Default: reports/browse/….html", metavar="FILE")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Compare two versions by rows: added, removed, with other labels, people; and a page with their pictures.

    With --json every row that differs is printed. What `export --permitted` leaves out is not compared.
    """
    from pipelines.data.browsing.difference import compare
    from pipelines.data.browsing.page import write_page
    from pipelines.data.rights import refused_photos
    from pipelines.registry.retraining import LATEST, newest
    from pipelines.versions.dataset_version import known_versions
    from pipelines.versions.version_tables import tables_of

    given, root = read_params(params, overrides), Path.cwd()
    if after == LATEST:
        after = newest(known_versions(root)) or after
    old, new = ([str(table) for table in tables_of(root, tag)] for tag in (before, after))
    wanted = _permitted(given, root)
    wanted.refused = refused_photos([*old, *new], given.rights)
    found = compare(old, new, wanted)
    file = _noted(out, f"{before}-{after}")
    kinds = (("added", found.added, new), ("removed", found.removed, old), ("changed", found.changed, new))
    cards = [card for kind, changes, tables in kinds for card in _cards(kind, changes, tables, sample)]
    of = sum(len(changes) for _, changes, _ in kinds)
    write_page(file, f"{before} → {after}", cards, of=of, left_out={}, notes=found.summary())
    for line in found.summary():
        say(line)
    say(f"pictures: {file}")
    emit(found, "")


def _permitted(params: Params, *places: Path) -> Selection:
    """Return the choice of rows that may be shown."""
    from pipelines.data.export.rows import Selection
    from pipelines.versions.forgotten import gate

    return Selection(params.rights, None, gate(*places).reason)


def _failing(name: str, params: Params, faces: Path, processed: Path) -> tuple[list[int], str]:
    """Return the numbers of the rows that fail an expectation, and what it protects."""
    from pipelines.data.validation.run_checks import failing_rows
    from pipelines.stages import validate, validate_processed

    stage, _, check_name = name.partition(".")
    own = Path(EXPECTATIONS)
    if stage == _VALIDATE:
        frame, checks = validate.prepare(params, validate.Inputs(faces, own))
    elif stage == _VALIDATE_PROCESSED:
        frame, checks = validate_processed.prepare(params, validate_processed.Inputs(processed, None, own))
    else:
        raise UserError(f"--failing {name}: expected {_VALIDATE}.NAME or {_VALIDATE_PROCESSED}.NAME")
    for check in checks:
        if check.name == check_name:
            return failing_rows(stage, check, frame), check.protects
    raise UserError(f"--failing {name}: no such expectation; there are {', '.join(check.name for check in checks)}")


def _pairs(given: Sequence[str]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair:
            raise UserError(f"--where {pair}: expected COLUMN=VALUE, such as reason=no_face")
    return dict(pair.split("=", 1) for pair in given)


def _noted(out: Path | None, name: str) -> Path:
    """Return the file to write; outside reports/, where `forget` deletes pages, it is noted before it is written."""
    from pipelines.data.validation.data_docs import PAGES
    from pipelines.versions.places import ROWS, note_copy

    if out is None:
        return PAGES / f"{name}.html"
    if not out.resolve().is_relative_to((Path.cwd() / "reports").resolve()):
        note_copy(Path.cwd(), out, ROWS)
    return out


def _cards(kind: str, changes: Sequence[RowChange], files: Sequence[str], sample: int) -> list[Card]:
    """Return the cards of a sample of the rows of one kind, with what changed of them."""
    import random
    from dataclasses import replace

    from pipelines.data.browsing.page import dataset_cards

    changes = random.Random(0).sample(changes, min(sample, len(changes)))
    numbers: dict[int, Any] = {
        (change.before if kind == "removed" else change.after) or 0: change for change in changes
    }
    order = sorted(numbers)
    cards = []
    for number, card in zip(order, dataset_cards(files, order), strict=True):
        labels = [
            (f"{name.replace('_', ' ')} changed", f"{was or 'none'} → {now or 'none'}")
            for name, (was, now) in numbers[number].labels.items()
        ]
        lines = [("change", kind), *labels, *card.lines]
        cards.append(replace(card, lines=lines, values={"change": kind, **card.values}))
    return cards


def _report(file: Path, counted: str, left_out: dict[str, int]) -> None:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
    say(f"{file}: {counted}" + (f"; not shown: {reasons}" if reasons else ""))
