"""Read a team's own expectations: YAML and Python files of the folder `expectations` of a checkout.

A YAML file names classes of Great Expectations; a Python file has a function `checks(stage, frame)` that returns a list
of `Check`, may add columns to the frame and may define classes of its own.
"""

from __future__ import annotations

import importlib.util
import re
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from pipelines.core.documents import read_yaml
from pipelines.core.errors import UserError
from pipelines.core.sections.section import Section, Share
from pipelines.core.words import counted, did_you_mean, nearest
from pipelines.data.validation.check import FAIL, Check, Severity

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("validate", "validate_processed")
# Stands for any text in a column of a frame of which only that is checked.
GIVEN = "given"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Of a column without its texts, all that can be expected.
_OF_NULLS = {"ExpectColumnValuesToBeNull", "ExpectColumnValuesToNotBeNull"}
# Arguments of every class: those that are set from the check itself, and those that a message need not name.
_OURS = frozenset({"id", "meta", "notes", "severity", "rendered_content", "result_format"})
_EVERYWHERE = frozenset({"batch_id", "catch_exceptions", "description", "windows"})


class OwnCheck(Section):
    """An expectation in a YAML file, below the name of a stage and its own name."""

    protects: str = Field(min_length=1)
    expectation: str
    column: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    allowed: Share | None = None
    severity: Severity = FAIL


def own_checks(folder: Path | None, stage: str, frame: pd.DataFrame, taken: Iterable[Check]) -> list[Check]:
    """Return the checks for `stage` that the files of `folder` define, in the order of the files' names.

    Python files may add columns to `frame`. Raises UserError, naming the file, where one cannot be read or run, a name
    is `taken`, or a class, column or argument does not exist.
    """
    names = {check.name: "the project" for check in taken}
    found = []
    for file in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        if file.name.startswith((".", "_")) or file.suffix == ".md":
            continue
        if file.suffix not in (".yaml", ".yml", ".py"):
            raise UserError(f"{file}: expected a .yaml or .py file of expectations; move it out of {folder}")
        rows = len(frame)
        for check in _of_python(file, stage, frame) if file.suffix == ".py" else _of_yaml(file, stage):
            if check.name in names:
                raise UserError(f"{file}: {check.name}: {names[check.name]} has an expectation of this name already")
            _refuse_unknown(check, file, stage, frame)
            names[check.name] = str(file)
            found.append(replace(check, origin=str(file)))
        if len(frame) != rows:
            raise UserError(
                f"{file}: {counted(rows, 'row')} became {len(frame)}; a file may add columns, not change the rows"
            )
    return found


def check_spark(folder: Path | None) -> None:
    """Raise UserError where `folder` has Python files of expectations, which need a frame of pandas."""
    for file in sorted(folder.glob("[!._]*.py")) if folder is not None else ():
        raise UserError(
            f"{file}: needs a frame of pandas, and so many rows are checked by Spark; set validate.engine to pandas "
            "(about 1 GB of memory a million rows), or write the expectations as YAML"
        )


def _of_yaml(file: Path, stage: str) -> Iterator[Check]:
    tree = read_yaml(file)
    stages = ", ".join(STAGES)
    if not isinstance(tree, dict) or not set(tree) <= set(STAGES):
        raise UserError(f"{file}: expected expectations by their names below a stage ({stages})")
    for name, given in (tree.get(stage) or {}).items():
        try:
            own = OwnCheck.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in (name, *fault["loc"]))
            known = ", ".join(OwnCheck.model_fields)
            raise UserError(f"{file}: {where}: {fault['msg'].lower()}; an expectation has {known}") from None
        arguments = {**({} if own.column is None else {"column": own.column}), **own.arguments}
        if own.allowed is not None:
            arguments["mostly"] = round(1.0 - own.allowed, 9)
        check = Check(str(name), own.expectation, own.protects, arguments, severity=own.severity, allowed=own.allowed)
        by_value = "mostly" in _fields(check, file)
        if own.allowed is not None and not by_value:
            raise UserError(f"{file}: {name}.allowed: {own.expectation} is not about single values; leave it out")
        yield replace(check, allowed=0.0) if by_value and own.allowed is None and "mostly" not in arguments else check


def _of_python(file: Path, stage: str, frame: pd.DataFrame) -> list[Check]:
    spec = importlib.util.spec_from_file_location(f"expectations_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.checks(stage, frame)
    except Exception as error:
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == str(file)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        where = f" line {line}:" if line else ""
        raise UserError(
            f"{file}:{where} {type(error).__name__}: {' '.join(str(error).split())}; expected a function "
            "`checks(stage, frame)` that returns a list of Check"
        ) from error
    if not isinstance(made, list) or not all(isinstance(check, Check) for check in made):
        raise UserError(f"{file}: checks({stage!r}, …) returned {type(made).__name__}; expected a list of Check")
    return made


def _refuse_unknown(check: Check, file: Path, stage: str, frame: pd.DataFrame) -> None:
    if not _NAME.fullmatch(check.name):
        raise UserError(f"{file}: {check.name!r}: expected a name of small letters, digits and _")
    fields = _fields(check, file)
    for argument in check.arguments:
        if argument not in fields or argument in _OURS:
            own = sorted(set(fields) - _OURS - _EVERYWHERE)
            takes = did_you_mean(argument, own) or f"; it takes {', '.join(own)}"
            raise UserError(f"{file}: {check.name}: {_title(check)} has no argument {argument!r}{takes}")
    columns = [check.arguments[key] for key in check.arguments if key.startswith("column") and key != "column_list"]
    columns += check.arguments.get("column_list") or []
    for column in columns:
        if column not in frame.columns:
            near = nearest(str(column), map(str, frame.columns)) or sorted(frame.columns)
            raise UserError(f"{file}: {check.name}: {stage} has no column {column!r}; there are {', '.join(near)}")
        made = check.expectation
        names = {made} if isinstance(made, str) else {one.__name__ for one in made.__mro__}
        if not names & _OF_NULLS and set(frame[column].dropna().unique()) == {GIVEN}:
            raise UserError(
                f"{file}: {check.name}: of {column}, {stage} only knows which rows have one; use "
                "ExpectColumnValuesToNotBeNull, or read the texts in a Python file that adds a column"
            )


def describe_faults(check: Check, error: ValueError) -> str:
    """Return what is wrong with the arguments of a check, as its class says it, in one line."""
    named: Any = getattr(error, "errors", None)  # of the pydantic that Great Expectations uses
    faults = named() if named else [{"loc": (), "msg": str(error)}]
    where = [".".join(str(part) for part in one["loc"] if part != "__root__") for one in faults]
    lines = [f"{place}: {one['msg']}" if place else str(one["msg"]) for place, one in zip(where, faults, strict=True)]
    return f"{check.origin}: {check.name}: {_title(check)}: {' '.join('; '.join(lines).split())}"


def _title(check: Check) -> str:
    return check.expectation if isinstance(check.expectation, str) else check.expectation.__name__


def _fields(check: Check, file: Path) -> dict[str, Any]:
    """Return the arguments of a check's class by name; raise UserError where there is no such class."""
    import great_expectations.expectations as gxe

    known = {name: one for name, one in vars(gxe).items() if isinstance(one, type) and issubclass(one, gxe.Expectation)}
    made = known.get(check.expectation) if isinstance(check.expectation, str) else check.expectation
    if made is None or not issubclass(made, gxe.Expectation):
        near = ", ".join(nearest(str(check.expectation), known)) or "those of its gallery"
        raise UserError(f"{file}: {check.name}: Great Expectations has no class {check.expectation}; near are {near}")
    fields: dict[str, Any] = vars(made)["__fields__"]
    return fields
