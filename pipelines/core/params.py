"""All parameters of a run, read from `params.yaml` and checked: frozen, unknown keys refused.

A profile (`profiles/<name>.yaml`) is a parameter file. One with `extends: <name>` holds only what differs from profile
`<name>` in the same folder; DVC cannot read that, so `dynamicid configure` writes all values to `params.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipelines.core.documents import parse_yaml, read_text, read_yaml, write_yaml
from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.parameters import bring_up_to_date
from pipelines.core.formats.table import KEY, PARAMETERS
from pipelines.core.sections.conventions import Conventions
from pipelines.core.sections.data import Curate, Export, Ingest, Preprocess, Rights, Validate, ValidateProcessed
from pipelines.core.sections.evaluation import Evaluate, Register
from pipelines.core.sections.operations import Drift, Inbox, Keeping, Retrain, Serve
from pipelines.core.sections.section import Section, keys_of, section_in
from pipelines.core.sections.training import BaseModels, Caches, TrainAnchoring, TrainImr
from pipelines.core.words import nearest

# In a checkout; DVC and the stages read it.
PARAMS = "params.yaml"


class Params(Section):
    """All parameters of a run."""

    format: Literal[5] = Field(5, description="Version of this file's format.")
    profile: str = Field(description="Name of the profile; recorded with every result.")
    base: BaseModels
    ingest: Ingest = Ingest()
    curate: Curate = Curate()
    validate_: Validate = Field(Validate(), alias="validate")
    preprocess: Preprocess
    validate_processed: ValidateProcessed = ValidateProcessed()
    rights: Rights = Rights()
    caches: Caches = Caches()
    train_anchoring: TrainAnchoring
    train_imr: TrainImr
    conventions: Conventions = Conventions()
    evaluate: Evaluate
    register_: Register = Field(Register(), alias="register")
    drift: Drift = Drift()
    keeping: Keeping = Keeping()
    inbox: Inbox = Inbox()
    retrain: Retrain = Retrain()
    export: Export = Export()
    serve: Serve = Serve()


def profile_file(folder: Path, name: str, asked: str) -> Path:
    """Return the file of profile `name` in `folder`; raise UserError, beginning with `asked`, where it is missing."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"{asked}: no file {name}.yaml in {folder.resolve()}; there are {', '.join(known)}")
    return (folder / f"{name}.yaml").resolve()


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML parameter file as it is; raise UserError where it is missing or not a mapping in UTF-8."""
    if not file.is_file():
        how = "in a checkout `dynamicid configure --profile tiny` writes params.yaml; --params names another file"
        raise UserError(f"{file}: no such parameter file; {how}")
    tree = read_yaml(file)
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected a mapping of sections")
    return tree


def read_tree(file: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML parameter file, completed by the profile that it extends, into nested dicts.

    A file of an older format is brought up to date; a profile without a name has that of its file. `extended_by` lists
    the files whose `extends` led to this one. Raises UserError where a file is missing, not a mapping in UTF-8 or of a
    newer format, and where profiles extend each other in a circle.
    """
    tree = read_mapping(file)
    bring_up_to_date(tree, file)
    tree = {KEY: PARAMETERS.version, **tree}
    if "extends" not in tree:
        return tree
    tree.setdefault("profile", file.stem)
    name = tree.pop("extends")
    if not isinstance(name, str):
        raise UserError(f"{file}: extends: expected the name of a profile, not {name!r}")
    below = profile_file(file.parent, name, f"{file}: extends {name!r}")
    path = (*extended_by, file.resolve())
    if below in path:
        circle = " → ".join(each.stem for each in (*path, below))
        raise UserError(f"{file}: profiles extend each other in a circle: {circle}")
    return dict(_merged(read_tree(below, path), tree))


def _merged(below: Any, above: Any) -> Any:
    """Return `above`; where both are mappings, add the keys that only `below` has, at every depth."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _set(tree: dict[str, Any], assignment: str) -> None:
    key, sign, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if not (sign and all((*parents, last))):
        raise UserError(f"--set {assignment}: expected section.key=value")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {assignment}: {parent} is a value, not a section")
        node = child
    node[last] = parse_yaml(text, f"--set {assignment}")


def problems_of(error: ValidationError, section: type[Section]) -> list[str]:
    """Return one sentence for every unknown key, missing key and wrong value of a section."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {where}{_suggestion(problem['loc'], section)}")
        elif problem["type"] == "missing":
            problems.append(f"missing key {where}")
        else:
            problems.append(f"{where} = {problem['input']!r}: {problem['msg']}")
    return problems


def check_params(tree: dict[str, Any], origin: str) -> Params:
    """Return `tree` as Params; raise UserError that lists every unknown key, missing key and wrong value."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {'; '.join(problems_of(error, Params))}") from None


def _suggestion(location: tuple[int | str, ...], section: type[Section]) -> str:
    """Return "; did you mean …?" with the most similar key of the same section, or "" where none is similar."""
    *parents, unknown = location
    for part in parents:
        # A part that is no key is a list index or a mapping key: the section stays the same.
        if part in (keys := keys_of(section)):
            section = section_in(keys[str(part)].annotation) or section
    near = nearest(str(unknown), keys_of(section), 1)
    return "".join(f"; did you mean {'.'.join(map(str, (*parents, key)))}?" for key in near)


def overridden_tree(file: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Return `read_tree(file)` with `section.key=value` overrides applied in order; keys are not checked."""
    tree = read_tree(file)
    for assignment in overrides:
        _set(tree, assignment)
    return tree


def load_params(file: Path, overrides: Iterable[str] = ()) -> Params:
    """Read `file`, apply `section.key=value` overrides in order, and check every key."""
    return check_params(overridden_tree(file, overrides), str(file))


def changes(first: Any, second: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return (key, value in `first`, value in `second`) of the leaves of nested mappings that differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            change
            for key in {**first, **second}
            for change in changes(first.get(key), second.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if first == second else [(prefix, first, second)]


def dump_params(tree: dict[str, Any], file: Path) -> None:
    """Write a parameter tree to `file` as YAML, whole or not at all; raise OSError where it cannot be written.

    In a file that is there, only the lines of values that differ change: comments and the order of keys stay.
    """
    with file.open("a", encoding="utf-8"):
        pass  # names the file itself where it is a folder, or its folder is missing
    try:
        text = write_yaml(tree, read_text(file))
    except (UserError, ValueError):
        text = _whole(tree, file)  # what is there is damaged
    write_atomically(file.resolve(), text)


def _whole(tree: dict[str, Any], file: Path) -> str:
    try:
        return write_yaml(tree)
    except (UserError, ValueError) as error:
        raise UserError(f"{file}: a value cannot be written as YAML, such as a control character: {error}") from None
