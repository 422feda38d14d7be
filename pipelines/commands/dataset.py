"""`dynamicid dataset`: the versions of data/faces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pipelines.commands.browse import browse, diff
from pipelines.commands.options import AcceptUnrelated, argument, command_group, option
from pipelines.commands.output import emit, say
from pipelines.core.chain import FACES
from pipelines.core.errors import StageFailed, UserError
from pipelines.core.words import counted

app = command_group("Show, list, check out and publish versions of the dataset data/faces.")


@app.command()
def show() -> None:
    """Print the current version as JSON: tag (null if it has none), md5, rows."""
    from pipelines.versions.dataset_version import current_version

    emit(current_version(Path.cwd()))


@app.command("list")
def list_versions(
    *,
    long: Annotated[bool, option("With date, rows, people and sources, as far as the data is here.", "--long")] = False,
) -> None:
    """Print all versions, oldest first, one per line."""
    from pipelines.versions.dataset_version import known_versions

    if long:
        _list_contents()
        return
    versions = known_versions(Path.cwd())
    emit(versions, "\n".join(versions))


def _list_contents() -> None:
    from pipelines.versions.version_tables import version_contents

    found = version_contents(Path.cwd())
    lines = [("version", "date", "rows", "people", "source")]
    for one in found:
        sources = "not in the cache" if one.sources is None else ", ".join(one.sources) or "none stated"
        rows, people = ("?" if count is None else f"{count:,}" for count in (one.rows, one.people))
        lines.append((one.tag, one.date[:16].replace("T", " "), rows, people, sources))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    table = ("  ".join([*map(str.ljust, line, widths), line[4]]) for line in lines)
    emit(found, "\n".join(table) if found else "")


app.command()(browse)
app.command()(diff)


@app.command()
def checkout(tag: Annotated[str, argument("A version such as faces-v3, or latest.", metavar="TAG")]) -> None:
    """Restore version TAG of the dataset into data/faces."""
    from pipelines.registry.retraining import LATEST, newest
    from pipelines.versions.dataset_version import checkout_version, fetch_versions, known_versions

    if tag == LATEST:
        fetch_versions(Path.cwd())
        tag = newest(known_versions(Path.cwd())) or ""
        if not tag:
            raise UserError("latest: there is no dataset version yet; `dynamicid ingest` makes one")
    checkout_version(Path.cwd(), tag)
    emit({"tag": tag}, tag)


@app.command()
def merge(
    kept: Annotated[str, argument("The name to keep.", metavar="NAME")],
    others: Annotated[list[str], argument("Other names of the same person.", metavar="OTHER…")],
    *,
    folder: Annotated[Path, option("Dataset folder.", "--dir", metavar="DIR")] = Path(FACES),
    version: Annotated[bool, option("Make a dataset version.", "--version/--no-version")] = True,
) -> None:
    """Make several names one person, whose photos are then all in one split; a new version of the dataset."""
    from pipelines.core.locks import hold
    from pipelines.data.ingest.shards import merge_people

    taken = StageFailed(f"{folder}: an ingest writes to it; wait for it to end")
    with hold(folder.with_name(f".{folder.name}.lock"), taken):
        count = merge_people(folder, kept, others)
    say(f"{folder}: {counted(count, 'photo')} of {kept!r} now; `dynamicid repro` makes the results from them")
    emit({"photos": count, "version": publish_version(folder) if version else None})


@app.command()
def publish(
    folder: Annotated[Path, option("Dataset folder.", "--dir", metavar="DIR")] = Path(FACES),
    accept_unrelated: AcceptUnrelated = False,
) -> None:
    """Make a version of data/faces as it is; print it as JSON, with `new` false if this data already had one."""
    if not accept_unrelated:
        from pipelines.versions.continuity import check_continues

        check_continues(Path.cwd(), folder.as_posix())
    emit(publish_version(folder))


def publish_version(folder: Path) -> dict[str, Any]:
    """Make a version of a dataset folder and return it; `new` is false if the same data already had one."""
    from pipelines.versions.dataset_version import current_version, known_versions, make_version

    before = set(known_versions(Path.cwd()))
    parent = current_version(Path.cwd()).tag
    made = make_version(Path.cwd(), folder, f"Photos added to {parent or 'nothing'}")
    say(f"version {made.tag}{', which existed already' if made.tag in before else ''}")
    return {**asdict(made), "new": made.tag not in before}
