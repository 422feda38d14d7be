"""Train the foundation: resumable parts, in order, fill a folder with weights and a manifest.

`work`/<part> has `recipe.json` (settings and hashes of the inputs), `state/` (checkpoints) and, once the part is
finished, `figures.json` and `files.json` (hashes of its files). Delete the folder to train the part again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.foundation import manifest
from model.foundation.edition import EDITIONS, SHIPPED, Edition
from model.foundation.measure import Sample, chosen_parts, measure_foundation
from model.foundation.parts import PARTS, RECIPE, Part, PartContext, Recipe, TrainingContext
from model.foundation.people import Draw
from model.foundation.shipped_adapter import FOLDER, matches_base


@dataclass(frozen=True)
class TrainingResult:
    """Figures by part, and the manifest's path or, before it can be written, the missing parts."""

    figures: dict[str, dict[str, Any]]
    manifest: Path | None
    missing: tuple[str, ...]


def train_foundation(
    work: Path,
    weights: Path,
    draw: Draw,
    *,
    parts: Sequence[str] | None = None,
    steps_scale: float = 1.0,
    workers: int = 2,
    sample: Sample | None = None,
    edition: Edition = EDITIONS[SHIPPED],
) -> TrainingResult:
    """Train the unfinished parts among `parts` (all by default), in the order of RECIPE, from their last checkpoints.

    When all parts are finished, measure them on the people of `sample` and write the manifest. People already in `work`
    are used as they are; `steps_scale` multiplies the steps of every part (at least one remains).

    Of an `edition` that is not the shipped one, inherited parts are trained only if `parts` names them, and the
    manifest lists its parts as they are finished, one by one.

    Raises ValueError for an unknown part, a part begun with other settings or data, and a missing file of an earlier
    part; FloatingPointError where a loss is NaN or infinite.
    """
    shipped = edition.number == SHIPPED
    own = [part.name for part in RECIPE if not part.optional and (shipped or not part.inherited)]
    names = chosen_parts(own if parts is None else parts, PARTS)
    context = TrainingContext(work, weights, edition, draw, workers)
    for part in RECIPE:
        if part.name not in names:
            continue
        settings = _settings(part, work, steps_scale, edition)
        recipe = _recipe(part, context, settings)
        if shipped or not _is_listed(part, context, settings):
            train_part(part, context, recipe)
        else:
            record_recipe(work / part.name, recipe)
    return _finish(context, sample or Sample())


def train_part(part: Part, context: PartContext, recipe: Recipe) -> dict[str, Any]:
    """Train a part, unless it is finished, and return its figures; raises what `record_recipe` raises."""
    folder = context.work / part.name
    record_recipe(folder, recipe)
    if not _finished(part, context):
        context.weights.mkdir(parents=True, exist_ok=True)
        _write(folder / "figures.json", part.make(context, part.name, recipe))
        _write(folder / "files.json", {name: manifest.digest(context.weights / name) for name in part.files})
    return dict(_read(folder / "figures.json"))


def scaled(settings: dict[str, Any], steps_scale: float) -> dict[str, Any]:
    """Return settings as JSON has them, steps multiplied by `steps_scale` (at least one remains)."""
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    steps = {key: max(1, round(value * steps_scale)) for key, value in plain.items() if key.endswith("steps")}
    return {**plain, **steps}


def _settings(part: Part, work: Path, steps_scale: float, edition: Edition) -> dict[str, Any]:
    """Return the settings of a part as JSON has them."""
    if part.name == "people":
        settings = scaled(part.settings(edition), 1)
        if drawn := _read(work / "people" / "settings.json"):
            # `settings.json` calls pairs or shapes `groups`; the settings must be the same before and after drawing.
            groups = drawn.pop("groups")
            settings |= drawn | ({"pairs": groups} if isinstance(groups, int) else {"shapes": groups})
        return settings
    return scaled(part.settings(edition), steps_scale)


def _recipe(part: Part, context: TrainingContext, settings: dict[str, int]) -> Recipe:
    """Return the settings and the hashes of the part's inputs; raise ValueError where one is missing."""
    if part.name == "people":
        return {"settings": settings}
    people = context.work / "people" / "prompts.json"
    if not people.is_file():
        raise ValueError(f"{context.work}: no finished set of people there; train part people first")
    inputs = {"people": manifest.digest(people)}
    for name in part.needs:
        if not (context.weights / name).is_file():
            maker = next(other.name for other in RECIPE if name in other.files)
            raise ValueError(
                f"{context.weights}/{name}: missing, and {part.name} is trained on it; train {maker} first"
            )
        inputs[name] = manifest.digest(context.weights / name)
    return {"settings": settings, "inputs": inputs}


def record_recipe(folder: Path, recipe: Recipe) -> None:
    """Write `recipe` into `folder`; raise ValueError where a training with another recipe has begun."""
    kept = _read(folder / "recipe.json")
    if kept is not None and kept != recipe:
        changed = sorted(
            f"{name} {json.dumps(kept.get(group, {}).get(name))} there, {json.dumps(value)} now"
            for group, values in recipe.items()
            for name, value in values.items()
            if kept.get(group, {}).get(name) != value
        )
        raise ValueError(
            f"{folder}: begun with another recipe ({'; '.join(changed)}); delete the folder to train it anew"
        )
    if kept is None and any(folder.rglob("step-*")):
        raise ValueError(f"{folder}: checkpoints of unknown settings (no recipe.json); delete the folder")
    _write(folder / "recipe.json", recipe)


def _finished(part: Part, context: PartContext) -> bool:
    """Return whether the part is trained and its files are unchanged in the weights."""
    written = _read(context.work / part.name / "files.json")
    return written is not None and _has_files(context.weights, written)


def _is_listed(part: Part, context: TrainingContext, settings: dict[str, Any]) -> bool:
    """Return whether the manifest lists the part with these settings, trained on another machine, and its files."""
    if not part.files or not (context.weights / manifest.FILE).is_file():
        return False
    known = manifest.read(context.weights)
    return known["recipe"].get(part.name) == settings and _has_files(context.weights, _listed_hashes(known, part))


def _has_files(weights: Path, files: dict[str, str]) -> bool:
    return all((weights / name).is_file() and manifest.digest(weights / name) == known for name, known in files.items())


def _finish(context: TrainingContext, sample: Sample) -> TrainingResult:
    """Measure and write the manifest if all parts are finished, in `work` or according to the earlier manifest."""
    known = manifest.read(context.weights) if (context.weights / manifest.FILE).is_file() else None
    shipped = context.edition.number == SHIPPED
    recipe: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    missing = []
    for part in RECIPE:
        if _finished(part, context):
            recipe[part.name] = _read(context.work / part.name / "recipe.json")["settings"]
            figures[part.name] = _read(context.work / part.name / "figures.json")
        elif known and part.name in known["recipe"] and _has_files(context.weights, _listed_hashes(known, part)):
            recipe[part.name] = known["recipe"][part.name]
            figures[part.name] = known["figures"].get(part.name, {})
        elif not part.optional and (shipped or not part.inherited):
            missing.append(part.name)
    file = context.weights / manifest.FILE
    if missing and (shipped or not figures.keys() - {"people"}):
        return TrainingResult(figures, None, tuple(missing))
    if known and not manifest.check(context.weights) and recipe.items() <= known["recipe"].items():
        return TrainingResult(known["figures"], file, tuple(missing))
    if missing:
        begun = {name: found for name, found in (known or {}).get("begun", {}).items() if name in missing}
        return TrainingResult(figures, manifest.write(context.weights, recipe, figures, begun), tuple(missing))
    trained = [part for part in RECIPE if part.name != "people" and _finished(part, context)]
    # An optional part changes nothing of the others, whose figures stay.
    only = [part.name for part in trained] if known and trained and all(part.optional for part in trained) else None
    measured, _ = measure_foundation(
        context.weights,
        context.work,
        context.draw,
        sample,
        parts=only,
        workers=context.workers,
        edition=context.edition,
    )
    figures |= {name: {} for name in measured if name == "several_people"}
    figures = {name: {**figures[name], **measured.get(name, {})} for name in figures}
    if known and matches_base(context.weights):
        # Keep the shipped adapter while it matches its base.
        recipe |= {FOLDER: known["recipe"][FOLDER]} if FOLDER in known["recipe"] else {}
        figures |= {name: found for name, found in {**known["figures"], **measured}.items() if name not in PARTS}
    return TrainingResult(figures, manifest.write(context.weights, recipe, figures), ())


def _listed_hashes(known: dict[str, Any], part: Part) -> dict[str, str]:
    return {name: known["files"].get(name, {}).get("sha256", "") for name in part.files}


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
