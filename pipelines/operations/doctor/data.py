"""Check the photos: how many there are, of whom, and whether enough people are held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.row_schemas import DATASET_SCHEMA, open_rows
from pipelines.core.words import counted
from pipelines.evaluation.seen import refuse_seen
from pipelines.operations.doctor.finding import CheckResult

NO_PHOTOS = "there is no dataset yet"
_HOW = "`dynamicid ingest SRC`, or `dynamicid synthesize` for drawn people"


@dataclass(frozen=True)
class Photos:
    """Numbers of photos, their bytes, photos by person, and photos by domain: stated, else of a sample.

    `refused`: photos that `rights` keeps from training.
    """

    photos: int
    bytes: int
    people: dict[str, int]
    domains: dict[str, int]
    refused: int = 0


def read_photos(faces: Path, params: Params, *, fast: bool) -> Photos:
    """Return what a dataset holds; all zero where there is none. `fast`: only stated domains are read."""
    from pipelines.data.faces.domain import domains_of_dataset
    from pipelines.data.rights import COLUMNS, refusal

    if not any(faces.glob("*.parquet")):
        return Photos(0, 0, {}, {})
    people: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    terms: Counter[tuple[str | None, ...]] = Counter()
    rows = size = 0
    for batch in open_rows(faces, DATASET_SCHEMA).to_batches(columns=["identity", "n_bytes", "domain", *COLUMNS]):
        people.update(name for name in batch["identity"].to_pylist() if name)
        domains.update(value for value in batch["domain"].to_pylist() if value)
        size += sum(value or 0 for value in batch["n_bytes"].to_pylist())
        terms.update(zip(*(batch[name].to_pylist() for name in COLUMNS), strict=True))
        rows += batch.num_rows
    if not fast and not domains:
        domains = domains_of_dataset(faces, params.preprocess.max_pixels)[1]
    refused = sum(
        count for values, count in terms.items() if refusal(params.rights, dict(zip(COLUMNS, values, strict=True)))
    )
    return Photos(rows, size, dict(people), dict(domains), refused)


def photos(params: Params, found: Photos) -> list[CheckResult]:
    """Return the findings about the photos."""
    from pipelines.data.preprocessing.partition import split_of

    if not found.photos:
        return [CheckResult("data", "stop", NO_PHOTOS, f"{_HOW}; or --data DIR")]
    people = counted(len(found.people), "named person", "named people")
    text = f"{counted(found.photos, 'photo')}, {found.bytes / 1e6:,.0f} MB, of {people}"
    if found.refused:
        text += f", {found.refused:,} of them refused by the section rights"
    if too_few := _too_few(params, found, text):
        return [too_few]
    test, val = params.preprocess.test_share, params.preprocess.val_share
    splits = {name: split_of(name, test, val) for name in found.people}
    held_out = [name for name, split in splits.items() if split == "test"]
    usable = sum(found.people[name] >= 3 for name in held_out)
    if len(found.people) < params.validate_processed.min_identities:
        mend = "name people by folders (`dynamicid curate`), or ingest more of them"
        named = f"{text}; validate_processed.min_identities is {params.validate_processed.min_identities}"
        return [CheckResult("data", "stop", named, mend, ("validate_processed", "train_imr", "evaluate"))]
    least, mend = params.validate_processed.min_test_identities, "or raise preprocess.test_share"
    if len(held_out) < least:
        named = f"{text}; {len(held_out)} are held out, validate_processed.min_test_identities is {least}"
        return [CheckResult("data", "stop", named, f"ingest more people, {mend}", ("validate_processed",))]
    if usable < 2:
        named = f"{text}; {len(held_out)} are held out, {usable} of them with three photos; evaluate needs 2"
        return [CheckResult("data", "stop", named, f"ingest more photos of each person, {mend}", ("evaluate",))]
    asked = [name for name, split in splits.items() if split == params.evaluate.split]
    return _seen(asked, params) or [CheckResult("data", "good", f"{text}, {len(held_out)} of them held out")]


def _too_few(params: Params, found: Photos, text: str) -> CheckResult | None:
    """Return the finding that too few photos may be used, None where there are enough."""
    if found.refused == found.photos:
        mend = "state consent, licence and source of the photos, or change the section rights"
        return CheckResult("data", "stop", text, mend, ("train_anchoring", "train_imr", "evaluate"))
    least = params.validate_.min_photos
    if found.photos < least:
        named = f"{text}; validate.min_photos is {least}"
        return CheckResult("data", "stop", named, "ingest more photos", ("validate",))
    return None


def _seen(people: list[str], params: Params) -> list[CheckResult]:
    """Return what `evaluate` would refuse: held-out `people` whom shipped networks saw."""
    try:
        refuse_seen(people, params)
    except UserError as error:
        line, _, mend = str(error).partition("; figures on them are not of new people. ")
        return [CheckResult("data", "stop", line.removeprefix("evaluate: "), mend, ("evaluate",))]
    return []


def dataset(root: Path, data: Path | None) -> Path:
    """Return the dataset folder that is meant; raise UserError where a given one does not exist."""
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: no such folder; expected a dataset, as `dynamicid ingest` writes it")
    return data or root / "data" / "faces"
