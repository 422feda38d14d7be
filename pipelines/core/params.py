"""Typed parameters: one section a stage, frozen, unknown keys refused; `params.yaml` is the single source.

A profile (`profiles/<name>.yaml`) is a complete parameter file and nothing but data; `dynamicid configure`
copies one to `params.yaml` with changes applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Curate, Export, Ingest, Preprocess, Rights, Validate, ValidateProcessed
from pipelines.core.sections.evaluation import Evaluate, Register
from pipelines.core.sections.operations import Drift, Inbox, Keeping, Retrain, Serve
from pipelines.core.sections.section import Section
from pipelines.core.sections.training import BaseModels, TrainAnchoring, TrainImr


class Params(Section):
    """Everything a run depends on."""

    profile: str
    base: BaseModels
    ingest: Ingest = Ingest()
    curate: Curate = Curate()
    validate_: Validate = Field(Validate(), alias="validate")
    preprocess: Preprocess
    validate_processed: ValidateProcessed = ValidateProcessed()
    rights: Rights = Rights()
    train_anchoring: TrainAnchoring
    train_imr: TrainImr
    evaluate: Evaluate
    register_: Register = Field(Register(), alias="register")
    drift: Drift = Drift()
    keeping: Keeping = Keeping()
    inbox: Inbox = Inbox()
    retrain: Retrain = Retrain()
    export: Export = Export()
    serve: Serve = Serve()


def _set(tree: dict[str, Any], assignment: str) -> None:
    key, sign, text = assignment.partition("=")
    if not sign:
        raise UserError(f"--set {assignment}: expected section.key=value")
    *parents, last = key.strip().split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"--set {assignment}: {parent} is a value, not a section")
        node = child
    node[last] = yaml.safe_load(text)


def check_params(tree: dict[str, Any], origin: str) -> Params:
    """Turn a plain tree into Params; raise UserError naming every key that is unknown, missing or out of range."""
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                problems.append(f"unknown key {where}")
            elif problem["type"] == "missing":
                problems.append(f"missing key {where}")
            else:
                problems.append(f"{where} = {problem['input']!r}: {problem['msg']}")
        raise UserError(f"{origin}: {'; '.join(problems)}") from None


def read_tree(file: Path) -> dict[str, Any]:
    """Read a YAML parameter file into a plain tree; raise UserError where it is missing or not a mapping."""
    if not file.is_file():
        raise UserError(f"{file}: no such parameter file; `dynamicid configure --profile tiny` writes params.yaml")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{file}: expected a mapping of sections")
    return tree


def load_params(file: Path, overrides: Iterable[str] = ()) -> Params:
    """Read `file`, apply `section.key=value` overrides in order, and check every key."""
    tree = read_tree(file)
    for assignment in overrides:
        _set(tree, assignment)
    return check_params(tree, str(file))


def dump_params(tree: dict[str, Any], file: Path) -> None:
    """Write a parameter tree as YAML, sections in the order of the chain."""
    file.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")


def overridden_tree(file: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Return the tree of `file` with overrides applied, after checking that it is a valid parameter file."""
    tree = read_tree(file)
    for assignment in overrides:
        _set(tree, assignment)
    check_params(tree, str(file))
    return tree
