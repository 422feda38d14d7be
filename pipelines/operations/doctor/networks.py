"""Check the networks: present and as expected, licences, domains, judges."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import sha256
from pipelines.core.params import Params
from pipelines.core.paths import resolve
from pipelines.core.sections.evaluation import Licences
from pipelines.core.weights.check import network_faults, state_of
from pipelines.core.weights.domains import (
    DRAWN,
    PHOTOGRAPH,
    UNKNOWN,
    NetworkDomain,
    conflicts,
    describe_conflict,
    main_domain,
    network_domains,
)
from pipelines.core.weights.licences import NO_COMMERCE, NO_REDISTRIBUTION, licence_faults, networks_at
from pipelines.core.weights.lock import read_lock
from pipelines.core.weights.manifest import SHAPING, named_paths, read_manifest
from pipelines.core.words import counted, nearest
from pipelines.operations.doctor.finding import CheckResult

_STAGES = {
    "base": ("train_anchoring", "train_imr", "evaluate"),
    "preprocess": ("preprocess", "train_anchoring", "evaluate"),
    "evaluate": ("evaluate",),
}
_SECTIONS = tuple(_STAGES)


def networks(params: Params, root: Path, counts: dict[str, int], *, fast: bool) -> list[CheckResult]:
    """Return the findings about the networks that the parameters name, for photos of these domains.

    `fast`: only names and sizes of files are compared, nothing is hashed.
    """
    tree = params.model_dump(mode="json", by_alias=True)
    paths = named_paths(tree, _SECTIONS)
    return [
        *_present(paths, root, fast=fast),
        *_licences(params, named_paths(tree, SHAPING), root),
        *_domains(network_domains(params, _SECTIONS, root), counts),
        *_judges(params, paths, fast=fast),
        *_thresholds(params, root),
    ]


def _present(paths: dict[str, str], root: Path, *, fast: bool) -> list[CheckResult]:
    manifest, lock = read_manifest(root), read_lock(root)
    found: list[CheckResult] = []
    checked: dict[str, list[str]] = {}
    for key, path in sorted(paths.items()):
        name = manifest.at(path, root)
        stages = _STAGES[key.split(".")[0]]
        if name is None:
            if not resolve(path).exists():
                text = f"{key}: {path} is missing"
                found.append(CheckResult("weights", "stop", text, f"put the network there, or set {key}", stages))
            continue
        network = manifest.networks[name]
        if not network.shipped and (state := state_of(root, name, network, lock)) in ("absent", "incomplete"):
            instead = f"; may stand in for it: {', '.join(network.instead)}" if network.instead else ""
            fetch = f"dynamicid weights fetch {name}" + ("" if network.source else " --from DIR")
            where = f", from {network.page}" if network.page and not network.source else ""
            how = f"`{network.made_by or fetch}`{where}" if network.files or network.made_by else f"bring it to {path}"
            found.append(CheckResult("weights", "stop", f"{key}: {name} is {state}", how + instead, stages))
        elif not fast and name not in checked:
            checked[name] = network_faults(root, name, network, lock)
            if checked[name]:
                mend = f"`dynamicid weights fetch {name}`" if network.source else "restore the file (git)"
                found.append(CheckResult("weights", "stop", f"{name}: {checked[name][0]}", mend, stages))
    if not found:
        how = "by names and sizes" if fast else "and hashed"
        found.append(CheckResult("weights", "good", f"there: {counted(len(paths), 'network')}, {how}"))
    return found


def _licences(params: Params, paths: dict[str, str], root: Path) -> list[CheckResult]:
    return [*_unknown_words(params.register_.licences, root), *_refused_licences(params, paths, root)]


def _unknown_words(policy: Licences, root: Path) -> list[CheckResult]:
    """Return a warning for every pattern of the policy that fits nothing: a misspelt one refuses nothing."""
    known = [*read_manifest(root).licences, NO_COMMERCE, NO_REDISTRIBUTION]
    folded = [word.casefold() for word in known]
    found = []
    for pattern in (*policy.allow, *policy.deny):
        if not fnmatch.filter(folded, pattern.strip().casefold()):
            near = nearest(pattern.strip(), known, 1)
            mend = f"did you mean {near[0]}?" if near else f"the words: {', '.join(known)}"
            text = f"register.licences: {pattern!r} is no licence of the manifest, nor what one forbids"
            found.append(CheckResult("licences", "warning", text, mend))
    return found


def _refused_licences(params: Params, paths: dict[str, str], root: Path) -> list[CheckResult]:
    used = networks_at(paths, root)
    if faults := licence_faults(used, params.register_.licences):
        manifest = read_manifest(root)
        names = [str(one["network"]) for one in used if "network" in one]
        instead = sorted(
            {other for name in names if name in manifest.networks for other in manifest.networks[name].instead}
        )
        mend = f"what may stand in for some networks: {', '.join(instead)}; or change register.licences"
        return [CheckResult("licences", "stop", fault, mend) for fault in faults]
    forbidding = sorted({str(one.get("network")) for one in used if one["commercial"] is False})
    if forbidding:
        text = f"{', '.join(forbidding)}: no commercial use, nor of an adapter that is trained with it"
        mend = 'if you sell, refuse it now: `dynamicid configure --set "register.licences.deny=[no-commercial-use]"`'
        return [CheckResult("licences", "warning", text, mend)]
    if unknown := sorted({str(one["parameter"]) for one in used if one["licence"] is None}):
        return [
            CheckResult("licences", "warning", f"{', '.join(unknown)}: licence not known", "state it in weights.yaml")
        ]
    return [CheckResult("licences", "good", "every licence permits commercial use")]


def _domains(used: list[NetworkDomain], counts: dict[str, int]) -> list[CheckResult]:
    main = main_domain(counts)
    if wrong := conflicts(used, main):
        stages = tuple(dict.fromkeys(stage for one in wrong for stage in _STAGES[one.key.split(".")[0]]))
        text, _, mend = describe_conflict(wrong, main).partition("; ")
        return [CheckResult("domains", "stop", f"{_count(counts, main)}: {text}", mend, stages)]
    known = {one.domain for one in used}
    if {DRAWN, PHOTOGRAPH} <= known:
        named = ", ".join(f"{one.key}: {one.domain}" for one in used if one.domain in (DRAWN, PHOTOGRAPH))
        mend = "take all networks from one profile, or vouch for some (base.domain, preprocess.domain)"
        return [CheckResult("domains", "stop", f"networks for drawings and for photographs together: {named}", mend)]
    if unknown := [one for one in used if one.domain == UNKNOWN]:
        text = f"{', '.join(one.key for one in unknown)}: nobody says whether they know drawings or photographs"
        settings = ", ".join(sorted({one.setting for one in unknown}))
        return [CheckResult("domains", "warning", text, f"state it: {settings}, or weights.yaml")]
    if sum(counts.values()) and main == UNKNOWN:
        text = "the photos may be drawings or photographs"
        return [CheckResult("domains", "warning", text, "state it at the next ingest: ingest.domain")]
    return [CheckResult("domains", "good", f"{_count(counts, main)}; networks for {', '.join(sorted(known)) or 'any'}")]


def _count(counts: dict[str, int], domain: str) -> str:
    total = sum(counts.values())
    photos = f"{counts.get(domain, 0)} of {counted(total, 'photo')} seen"
    return f"of domain {domain}: {photos}" if total else "no photos yet"


def _judges(params: Params, paths: dict[str, str], *, fast: bool) -> list[CheckResult]:
    """Return whether a judge has the weights of a network that conditions the model."""
    pack = resolve(params.preprocess.insightface_root) / "models" / params.preprocess.insightface_name
    conditioning = {sha256(file): file for file in pack.glob("*.onnx")}
    judges = {key: resolve(path) for key, path in paths.items() if key.startswith("evaluate.judges.")}
    for key, file in judges.items():
        if file.suffix == ".onnx" and file.is_file() and (same := conditioning.get(sha256(file))):
            text = f"{key}: {file} is {same.name} of the face pack, which conditions the model"
            return [CheckResult("judges", "stop", text, "choose another network as judge", ("evaluate",))]
    missing = sorted(key for key, file in judges.items() if not file.exists())
    if missing:
        mend = "`dynamicid weights list` names judges; docs/explanation/evaluation.md says what each must give"
        return [CheckResult("judges", "stop", f"{', '.join(missing)}: missing", mend, ("evaluate",))]
    if not fast:
        from pipelines.evaluation.judge_loading import refuse_shared

        try:
            refuse_shared(params)  # also where a file holds the same weights in another form
        except UserError as error:
            text, _, mend = str(error).rpartition("; ")
            return [CheckResult("judges", "stop", text, mend, ("evaluate",))]
    return [CheckResult("judges", "good", f"{len(judges)} judges, none of which conditions the model")]


def _thresholds(params: Params, root: Path) -> list[CheckResult]:
    """Return whether thresholds are known for the recogniser of the face pack."""
    from pipelines.data.faces.calibration import recogniser_of

    stages = ("validate_processed",)
    try:
        recogniser = recogniser_of(params.preprocess, root)
        value = recogniser.similarity(params.validate_processed.similarity, "validate_processed.similarity")
    except UserError as error:
        text, _, mend = str(error).partition("; ")
        # Without the pack the finding about weights says what to do.
        return [] if not mend else [CheckResult("thresholds", "stop", text, mend, stages)]
    return [CheckResult("thresholds", "good", f"{recogniser}: faces of one person from a cosine of {value:g}")]
