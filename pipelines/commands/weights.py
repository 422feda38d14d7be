"""`dynamicid weights`: which networks the project needs, fetch them, and check that they are the expected ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.commands.options import DEFAULT_PARAMS, ParamsFile, argument, command_group, option
from pipelines.commands.output import emit, emit_if_asked, say, say_done, warn
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.words import counted

if TYPE_CHECKING:
    from pipelines.core.weights.jobs import Progress

app = command_group("List, fetch and verify the networks that the profiles need, with their licences.")

Names = Annotated[list[str] | None, argument("Networks by name; default: those that the parameters name.")]
Profile = Annotated[str | None, option("Networks of this profile instead of those of the parameter file.")]


@app.command("list")
def list_networks(profile: Profile = None) -> None:
    """Show the networks: purpose, path, licence, the pictures that they know, who needs them, what may replace them."""
    from pipelines.core.weights.check import state_of
    from pipelines.core.weights.lock import read_lock
    from pipelines.core.weights.manifest import read_manifest

    root = Path.cwd()
    manifest, lock = read_manifest(root), read_lock(root)
    needing = _needing_profiles(root)
    chosen = _chosen(root, None, profile, DEFAULT_PARAMS) if profile else manifest.networks
    rows = []
    for name in chosen:
        network = manifest.networks[name]
        terms = None if network.licence is None else manifest.licences[network.licence].model_dump(exclude_none=True)
        rows.append(
            {
                "name": name,
                **network.model_dump(mode="json", exclude={"files"}),
                "files": list(network.files),
                "terms": terms,
                "profiles": [one for one, names in needing.items() if name in names],
                "state": state_of(root, name, network, lock),
            }
        )
    emit(rows, "\n".join(map(_shown, rows)))


@app.command()
def fetch(
    names: Names = None,
    *,
    profile: Profile = None,
    folder: Annotated[
        Path | None,
        option("Take the files from a folder, such as another checkout's `weights`.", "--from", metavar="DIR"),
    ] = None,
    accept: Annotated[
        list[str] | None, option("Accept this licence after reading it; repeatable.", metavar="LICENCE")
    ] = None,
    parallel: Annotated[int, option("Files fetched at once.", min=1, max=32)] = 4,
    file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Fetch networks and record them in weights.lock; a fetch that was interrupted continues where it ended.

    HF_ENDPOINT names a mirror of the Hugging Face Hub, HF_TOKEN is for repositories that need an account.
    """
    from pipelines.core.weights.fetch import NotFetched
    from pipelines.core.weights.fetch import fetch as bring
    from pipelines.core.weights.manifest import read_manifest

    if folder is not None and not folder.is_dir():
        raise UserError(f"--from {folder}: no such folder")
    root = Path.cwd()
    chosen = _chosen(root, names, profile, file)
    failed = None
    with _progress() as progress:
        try:
            done = bring(root, chosen, folder=folder, accepted=accept or (), parallel=parallel, progress=progress)
        except NotFetched as error:
            failed, done = error, error.fetched
    for network in done:
        if network.unpublished:
            files = ", ".join(network.unpublished)
            warn(f"{network.name}: nobody publishes the sha256 of {files}: trusted on first use, now in weights.lock")
        what = "fetched" if network.new else "is there and right"
        say_done(f"{network.name}: {what} ({network.path}, {network.bytes / 1e6:,.1f} MB)")
    faults = failed.faults if failed else {}
    for name in chosen:
        if name in faults:
            warn(f"{name}: not fetched: {faults[name]}")
        elif name not in {network.name for network in done}:
            made_by = read_manifest(root).network(name).made_by
            say(f"{name}: {f'made here by `{made_by}`' if made_by else 'ships with the project'}")
    emit_if_asked([asdict(network) for network in done])
    if failed:
        raise failed


@app.command()
def convert(
    name: Annotated[str, argument("Network by name.")],
    *,
    folder: Annotated[Path, option("Folder with the published files.", "--from", metavar="DIR")],
) -> None:
    """Make a network that is published in another form from its published files, which `list` names; record it."""
    from pipelines.core.weights.convert import convert as make

    done = make(Path.cwd(), name, folder)
    say_done(f"{name}: made ({done.path}, {done.bytes / 1e6:,.1f} MB)")
    emit_if_asked(asdict(done))


@app.command()
def verify(names: Names = None, *, profile: Profile = None, file: ParamsFile = DEFAULT_PARAMS) -> None:
    """Hash the files of networks and compare them with weights.lock and the manifest; exit 1 where one differs."""
    from pipelines.core.weights.check import network_faults
    from pipelines.core.weights.lock import read_lock
    from pipelines.core.weights.manifest import read_manifest

    root = Path.cwd()
    manifest, lock = read_manifest(root), read_lock(root)
    networks = {name: manifest.network(name) for name in _chosen(root, names, profile, file)}
    faults = {}
    for name, network in networks.items():
        if network.made_by and not (root / network.path).exists():
            say(f"{name}: not made yet; `{network.made_by}` makes it")
        else:
            faults[name] = network_faults(root, name, network, lock)
    emit_if_asked(faults)
    for name, found in faults.items():
        for fault in found:
            say(f"{name}: {fault}")
        if not found:
            say_done(f"{name}: as expected")
    if wrong := [name for name, found in faults.items() if found]:
        first = faults[wrong[0]][0]
        raise StageFailed(
            f"not as expected: {len(wrong)} of {counted(len(faults), 'network')} ({first}); `dynamicid weights fetch "
            f"{' '.join(wrong)}` fetches them"
        )


def _chosen(root: Path, names: list[str] | None, profile: str | None, file: Path) -> list[str]:
    """Return the networks that a command works on, each once; warn of paths that the manifest does not have."""
    from pipelines.core.params import profile_file, read_tree
    from pipelines.core.paths import project_root
    from pipelines.core.weights.check import needed_by
    from pipelines.core.weights.manifest import read_manifest

    manifest = read_manifest(root)
    if names:
        for name in names:
            manifest.network(name)
        return list(dict.fromkeys(names))
    if profile is not None:
        file = profile_file(project_root() / "profiles", profile, f"--profile {profile}")
    needed = needed_by(read_tree(file), manifest, root)
    for key, path in needed.unknown.items():
        warn(f"{file}: {key} = {path}: no network of the manifest; describe your own in weights.yaml")
    return list(needed.keys)


def _needing_profiles(root: Path) -> dict[str, tuple[str, ...]]:
    from pipelines.core.params import read_tree
    from pipelines.core.paths import project_root
    from pipelines.core.weights.check import needed_by
    from pipelines.core.weights.manifest import read_manifest

    manifest = read_manifest(root)
    profiles = sorted((project_root() / "profiles").glob("*.yaml"))
    return {one.stem: tuple(needed_by(read_tree(one), manifest, root).keys) for one in profiles}


def _shown(row: dict[str, Any]) -> str:
    """Return what `list` prints of a network: a line of facts, then its purpose and remarks."""
    terms = row["terms"]
    licence = "licence not known"
    if terms is not None:
        allowed = [
            "commercial use allowed" if terms["commercial"] else "no commercial use",
            *([] if terms["redistribution"] else ["no redistribution"]),
            *(["to be accepted"] if terms["accept"] else []),
        ]
        licence = f"{row['licence']} ({', '.join(allowed)})"
    facts = f"{row['name']}: {row['mb']:,.0f} MB, knows {row['domain']}, {licence}, {row['state']}"
    source, made = row["source"] or {}, row["made_from"] or {"release": None, "files": {}}
    hashed = [f"{file} (sha256 {known['sha256']})" for file, known in made["files"].items()]
    lines = [facts, f"    {row['purpose']}"]
    for label, text in (
        ("in", row["path"]),
        ("from", source.get("hub") or source.get("archive") or source.get("files") or row["page"]),
        ("converted from", ", ".join([made["release"], *hashed]) if made["release"] else None),
        ("converted by", made["release"] and (made["command"] or "nothing here: its file has to be made")),
        ("hashes", "not published; those of the files that were measured" if row["hashes"] == "measured" else None),
        ("needed by", ", ".join(row["profiles"])),
        ("instead", ", ".join(row["instead"])),
        ("note", row["note"]),
    ):
        if text:
            lines.append(f"    {label}: {text}")
    return "\n".join(lines)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Yield what shows the bytes that arrive, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from pipelines.core.weights.jobs import Progress

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("fetch", total=None)

        class Shown(Progress):
            def begin(self, total: int) -> None:
                bars.update(task, total=total)

            def advance(self, count: int) -> None:
                bars.advance(task, count)

        yield Shown()
