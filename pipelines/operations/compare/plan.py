"""What is compared: the rows of the table, their parameters, and the checks before anything is trained."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.network.methods import METHODS, Method
from pipelines.core.errors import UserError
from pipelines.core.params import PARAMS, Params, load_params
from pipelines.core.paths import resolve
from pipelines.core.words import did_you_mean
from pipelines.evaluation.sampling import SAMPLED
from pipelines.evaluation.variants import TEXT_ONLY

# Every method starts from new weights: an adapter of one method is no start for another.
_FROM_SCRATCH = ("train_anchoring.start_from=null", "train_imr.start_from=null")
# Every row answers all questions of this project, alone.
_ASKED = {"shipped_adapter": "null", "protocol": "ours", "sweeps": "false", "variant_cells": "11"}
_TRAINED = ("base", "caches", "train_anchoring", "train_imr")
# What the command sets itself, and what all methods have in common.
_SEEDS = ("train_anchoring.seed", "train_imr.seed")
_BUDGET = ("train_anchoring.steps", "train_anchoring.batch_size")
_VERSION = re.compile(r"[^/:@]+/[0-9]+")


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, one of its variations, a version or adapter folder, or the base model alone.

    `params`: those of its trainings and evaluation, but for the seed. `method` is None where nothing is trained;
    `adapter` is the folder of a version. `changes`: parameters in which it differs from the other rows.
    """

    name: str
    params: Params
    seeds: tuple[int | None, ...]
    method: Method | None = None
    adapter: Path | None = None
    changes: tuple[str, ...] = ()

    @property
    def is_text_only(self) -> bool:
        """Whether it is the base model without an adapter."""
        return self.method is None and self.adapter is None

    def with_seed(self, seed: int | None) -> Params:
        """Return the parameters with the seed of both trainings."""
        if seed is None:
            return self.params
        trainings = {name: getattr(self.params, name) for name in ("train_anchoring", "train_imr")}
        return self.params.model_copy(
            update={name: section.model_copy(update={"seed": seed}) for name, section in trainings.items()}
        )


@dataclass(frozen=True)
class Asked:
    """What the user asked for: names of methods, versions, changes `[METHOD:]section.key=value`, and variations."""

    methods: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    seeds: int = 3


def plan_rows(asked: Asked, file: Path, root: Path) -> list[Row]:
    """Return the rows in the order in which they were named; the first is the one that the others are compared with.

    `file` is the parameter file. Raises UserError where a method, version or parameter does not exist, is named twice,
    cannot be compared, or changes nothing.
    """
    methods = asked.methods or (("dynamicid",) if asked.vary else ())
    for name in methods:
        if name not in METHODS and name != TEXT_ONLY:
            known = (*METHODS, TEXT_ONLY)
            near = did_you_mean(name, known)
            raise UserError(f"--methods {name}: no such method{near}; there are {', '.join(known)}")
    common, own = _divided(asked.changes, methods)
    variations = _variations(asked.vary)
    rows: list[Row] = []
    for name in methods:
        if name == TEXT_ONLY:
            rows.append(Row(name, _params(file, common), (None,)))
            continue
        for label, varied in variations:
            changes = (*own.get(name, ()), *varied)
            params = _params(file, (*common, f"train_anchoring.method={name}", *changes), varied)
            title = label if label and len(set(methods) - {TEXT_ONLY}) == 1 else ", ".join(filter(None, (name, label)))
            rows.append(Row(title, params, tuple(range(asked.seeds)), METHODS[name], changes=changes))
    rows += [_version(name, _params(file, common), root) for name in asked.versions]
    if len(rows) < 2:
        raise UserError(
            f"compare: {rows[0].name if rows else 'nothing'} to compare; name two or more rows by --methods (such as "
            "dynamicid,ip_adapter_faceid,text_only), --versions or --vary section.key=a,b"
        )
    if twice := [row.name for number, row in enumerate(rows) if row.name in {one.name for one in rows[:number]}]:
        raise UserError(f"compare: {twice[0]} is named twice; name every row once")
    if all(row.is_text_only for row in rows):
        raise UserError("compare: text_only alone; add a method or a version")
    _check_alike(rows)
    for row in rows:
        if row.method is not None:
            check_fits(row.method, row.params)
    return rows


def _params(file: Path, changes: Iterable[str], varied: Sequence[str] = ()) -> Params:
    every = [*_FROM_SCRATCH, *changes, *(f"evaluate.{key}={value}" for key, value in _ASKED.items())]
    try:
        return load_params(file, every)
    except UserError as error:
        if not varied:
            raise
        raise UserError(f"--vary {', '.join(varied)}: {error}") from None


def _divided(changes: Sequence[str], methods: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the changes for all, and those of `METHOD:section.key=value` by method; refuse what must be the same."""
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for change in changes:
        key = change.partition("=")[0]
        name, colon, key = key.rpartition(":")
        key = key.strip()
        _check_own(f"--set {change}", key)
        if not colon:
            common.append(change)
            continue
        if name not in methods or name == TEXT_ONLY:
            raise UserError(f"--set {change}: {name} is not among the methods that are trained: {', '.join(methods)}")
        _check_section(f"--set {change}", key)
        if key in _BUDGET:
            raise UserError(f"--set {change}: the budget is one for all methods; --set {change.partition(':')[2]}")
        own.setdefault(name, []).append(change.partition(":")[2])
    return common, own


def _variations(vary: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return a label and the changes of every combination of the values of `section.key=a,b,c`; one without any."""
    from pipelines.core.documents import parse_yaml

    values: dict[str, list[Any]] = {}
    for text in vary:
        key, sign, listed = text.partition("=")
        key = key.strip()
        found = parse_yaml(f"[{listed}]", f"--vary {text}") if sign else []
        if not (key and isinstance(found, list) and len(found) > 1) or key in values:
            raise UserError(f"--vary {text}: expected section.key=a,b with two values or more, each key once")
        _check_own(f"--vary {text}", key)
        _check_section(f"--vary {text}", key)
        values[key] = found
    lasts = [key.rpartition(".")[2] for key in values]
    combined = []
    for choice in itertools.product(*values.values()):
        pairs = [(key, json.dumps(value)) for key, value in zip(values, choice, strict=True)]
        shown = (key if lasts.count(last) > 1 else last for key, last in zip(values, lasts, strict=True))
        label = ", ".join(f"{name}={text.strip(chr(34))}" for name, (_, text) in zip(shown, pairs, strict=True))
        combined.append((label, tuple(f"{key}={text}" for key, text in pairs)))
    return combined


def _check_own(origin: str, key: str) -> None:
    """Raise UserError for what the command sets itself."""
    if key in (*_SEEDS, "train_anchoring.method"):
        option = "--seeds" if key in _SEEDS else "--methods"
        raise UserError(f"{origin}: `compare` sets it itself; use {option}")
    section, _, rest = key.partition(".")
    if section == "evaluate" and rest in _ASKED:
        raise UserError(f"{origin}: `compare` sets it to {_ASKED[rest]}, so that all rows answer the same, each alone")


def _check_section(origin: str, key: str) -> None:
    """Raise UserError where a parameter may not differ between rows, or changes neither training nor pictures."""
    section, _, rest = key.partition(".")
    if section not in Params.model_fields and f"{section}_" not in Params.model_fields:
        sections = [name.rstrip("_") for name in Params.model_fields]
        raise UserError(f"{origin}: unknown section {section}{did_you_mean(section, sections)}")
    if section in _TRAINED:
        return
    if section == "evaluate" and rest in SAMPLED:
        return
    why = {
        "evaluate": f"it changes what is asked or who judges, so the rows would not compare; of this section only "
        f"{', '.join(SAMPLED)} may differ",
        **dict.fromkeys(("ingest", "curate", "validate", "preprocess", "rights"), "all rows have the same photos"),
    }.get(section, "neither training nor evaluation reads it, so it has no effect")
    raise UserError(f"{origin}: {why}; expected a key of {', '.join(_TRAINED)}, or such a one of evaluate")


def _version(name: str, params: Params, root: Path) -> Row:
    """Return the row of a registered version (a URI, or NAME/NUMBER) or of an adapter folder."""
    from pipelines.registry.model_uri import adapter_folder, find_adapter, is_model_uri
    from pipelines.registry.registry import find_version, open_registry

    if _VERSION.fullmatch(name) and not resolve(name).is_dir():
        name = f"models:/{name}"
    if not is_model_uri(name):
        return Row(name, params, (None,), adapter=find_adapter(name, root))
    found = find_version(open_registry(root), name)
    title = f"{found.name}/{found.version}"
    folder = adapter_folder(f"models:/{title}", root)
    own = folder.parent / PARAMS
    if own.is_file():  # an adapter fits only its own base
        params = params.model_copy(update={"base": load_params(own).base})
    return Row(title, params, (None,), adapter=folder)


def _check_alike(rows: Sequence[Row]) -> None:
    """Raise UserError where two rows draw at another resolution, or their networks know other pictures."""
    first = rows[0]
    for row in rows[1:]:
        for name in ("resolution", "domain"):
            its, other = getattr(first.params.base, name), getattr(row.params.base, name)
            if its != other:
                raise UserError(
                    f"{first.name} has base.{name} {its}, {row.name} has {other}: their pictures do not compare; "
                    "compare rows of one resolution and one kind of picture"
                )


def check_fits(method: Method, params: Params) -> None:
    """Raise UserError, naming both, where the base of `params` lacks the layers that `method` extends.

    Its networks are built without weights.
    """
    import diffusers
    import torch

    from model.network.adapter import Adapter
    from model.network.base import class_in, read_index
    from model.network.denoisers import KINDS

    pipeline, encoder = resolve(params.base.pipeline), resolve(params.base.image_encoder)
    section = params.train_anchoring
    sizes = {**section.sizes.model_dump(), **(section.facial_parts.sizes() if method.facial_parts else {})}
    try:
        index = json.loads((pipeline / "model_index.json").read_bytes())
        part = "transformer" if class_in(index, "transformer") in KINDS else "unet"
        named = class_in(index, part)
        kind = getattr(diffusers, named if named is not None and named in KINDS else KINDS[0])
        with torch.device("meta"):
            denoiser = kind.from_config(kind.load_config(pipeline / part))
            width = json.loads((encoder / "config.json").read_bytes())["hidden_size"]
            Adapter(denoiser, width, sizes, section.gate_threshold, method)
        read_index(pipeline)
    except (ValueError, OSError, KeyError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{method.name} cannot be trained on the base {params.base.pipeline}: {problem}") from None
