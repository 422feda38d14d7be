"""Bring parameter files of older formats up to date."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from pipelines.core.documents import parse_yaml, read_text, write_yaml
from pipelines.core.errors import StageFailed
from pipelines.core.files import write_atomically
from pipelines.core.formats.table import KEY, PARAMETERS, check_format

Tree = MutableMapping[str, Any]
# The outputs of a network for expression and pose at once, in order.
_EXPRESSIONS, _POSES = "neutral happy sad angry surprised fearful disgusted", "left half_left front half_right right"
_BY_HAND = f"edit it by hand, and add the line `{KEY}: {PARAMETERS.version}`"


def bring_up_to_date(tree: Tree, file: object) -> int:
    """Change the parameter tree of `file` to the present format, and return the version that it stated.

    Raises UserError for a newer format.
    """
    version = check_format(PARAMETERS, file, tree.pop(KEY, None))
    for number in range(version, PARAMETERS.version):
        _STEPS[number](tree)
    return version


def rewrite(file: Path) -> None:
    """Rewrite a parameter file of an older format in the present one; its comments and the order of its keys stay.

    Raises StageFailed, and changes nothing, where other values would result.
    """
    text = read_text(file)
    tree = parse_yaml(text, str(file))
    bring_up_to_date(tree, file)
    try:
        written = write_yaml({KEY: PARAMETERS.version, **tree}, text)
    except ValueError as error:
        raise StageFailed(f"{file}: {error}; {_BY_HAND}") from None
    write_atomically(file, written)


def _from_1(tree: Tree) -> None:
    """Add the keys that format 1 lacks, with values that do the same; name the words that count as consent.

    In format 1 an empty `rights.consent.allow` permitted whatever was not denied, in format 2 only yes and true.
    """
    # A profile that extends another holds only what differs.
    complete = "extends" not in tree
    rights = tree.get("rights")
    consent = rights.get("consent") if isinstance(rights, MutableMapping) else None
    if isinstance(consent, MutableMapping) and not consent.get("allow", not complete):
        consent["allow"] = ["granted", "given", "agreed", "consented"]
    for section, key, value in (
        (tree.get("preprocess"), "spark", {}),
        (consent, "unknown", "allow"),
        (tree.get("train_imr"), "gradient_checkpointing", False),
    ):
        if complete and isinstance(section, MutableMapping):
            section.setdefault(key, value)


def _from_2(tree: Tree) -> None:
    """Take out the thresholds of recognisers and detectors, which belong to the networks since then; part the judges.

    A cosine of somebody's own choice stays as one of a recogniser that nobody named, which `curate` refuses.
    """
    curate, preprocess = tree.get("curate"), tree.get("preprocess")
    if isinstance(curate, MutableMapping) and isinstance(cosine := curate.get("similarity"), int | float):
        curate["similarity"] = None if cosine in (0.32, 0.68) else {"value": cosine, "recogniser": None}
    if isinstance(preprocess, MutableMapping) and preprocess.get("sure_scores") == {"tiny_faces": 0.0}:
        del preprocess["sure_scores"]
    evaluate = tree.get("evaluate")
    judges = evaluate.get("judges") if isinstance(evaluate, MutableMapping) else None
    if isinstance(judges, MutableMapping):
        _separate_judges(judges)


def _from_3(tree: Tree) -> None:
    """Make the number of pictures of two people one of pictures of several people."""
    evaluate = tree.get("evaluate")
    if isinstance(evaluate, MutableMapping) and "pairs" in evaluate:
        evaluate["several_people"] = {"two": evaluate.pop("pairs")}


def _from_4(tree: Tree) -> None:
    """Name what a retraining from `scratch` did: it followed the parameters, and means new weights now."""
    retrain = tree.get("retrain")
    if isinstance(retrain, MutableMapping) and retrain.get("start_from") == "scratch":
        retrain["start_from"] = "parameters"


def _separate_judges(judges: Tree) -> None:
    """Describe the recogniser by a section, and a network for expression and pose at once as three readings of it."""
    recogniser = judges.get("recogniser")
    described = {"path": recogniser, "crop": "arcface"} if isinstance(recogniser, str) else {}
    for key in ("size", "mean", "scale"):
        if (value := judges.pop(f"recogniser_{key}", None)) is not None:
            described[key] = value
    if described:
        judges["recogniser"] = described
    if (combined := judges.pop("expression_pose", None)) is not None:
        shared = {"path": combined, "crop": "face", "size": 112, "mean": 127.5, "scale": 127.5}
        judges["expression"] = [{**shared, "output": "expression", "classes": _EXPRESSIONS.split(), "values": "logits"}]
        judges["yaw"] = [{**shared, "output": "yaw", "angles": ["yaw"]}]
        judges["pose"] = {**shared, "output": "pose", "classes": _POSES.split(), "values": "logits"}


# How a file of each older format becomes one of the next.
_STEPS: dict[int, Callable[[Tree], None]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
