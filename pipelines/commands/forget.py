"""`dynamicid forget`: remove people or photos from everything that the project keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.commands.options import option
from pipelines.commands.output import emit, say
from pipelines.core.errors import StageFailed
from pipelines.core.words import counted
from pipelines.versions.places import UNREADABLE

if TYPE_CHECKING:
    from pipelines.operations.forgetting.forget import ForgettingReport


def forget(
    *,
    identity: Annotated[list[str] | None, option("Person to forget, by name; repeatable.", metavar="NAME")] = None,
    image_id: Annotated[list[str] | None, option("Photo to forget, by image_id; repeatable.", metavar="ID")] = None,
    again: Annotated[bool, option("Everybody who was forgotten before and whose photos came back.", "--again")] = False,
    delete_copies: Annotated[
        bool,
        option("Also delete, as a whole, exports and curated folders made here that hold them.", "--delete-copies"),
    ] = False,
    delete_artefacts: Annotated[
        bool, option("Also delete pictures of them that MLflow runs logged.", "--delete-artefacts")
    ] = False,
    check: Annotated[bool, option("Search all files for remaining bytes of the photos.", "--check/--no-check")] = True,
) -> None:
    """Remove people or photos from dataset and caches; list the models that were trained or evaluated on them.

    Called again, it finishes what was interrupted. Exit 1 if something is left or could not be searched.
    """
    from pipelines.operations.audit import audited
    from pipelines.operations.forgetting.forget import forget as carry_out
    from pipelines.operations.forgetting.subject import subject_of
    from pipelines.versions.forgotten import new_entry

    subject = subject_of(identity or (), image_id or (), again=again)
    hashed = new_entry(subject.identities, image_id or (), {})
    options = {"again": again, "copies": delete_copies, "artefacts": delete_artefacts}
    with audited(Path.cwd(), "forget", people=hashed.people, photos=hashed.photos, options=options) as result:
        done = carry_out(Path.cwd(), subject, copies=delete_copies, artefacts=delete_artefacts, check=check)
        result |= {"photos": done.photos, "version": done.version.tag, "finished": not (done.remaining or done.beyond)}
    _print_report(done, copies_deleted=delete_copies and not done.nothing_left)
    emit(done)
    count, some = counted(len(done.remaining), "file"), ", ".join(done.remaining[:10])
    left = [f"bytes of them are still in {count}: {some}; delete those too"] if done.remaining else []
    left += [f"not finished: {place}" for place in done.beyond]
    if left:
        raise StageFailed(f"{'; '.join(left)}; then forget them again: until then it is not finished")


def _print_report(done: ForgettingReport, *, copies_deleted: bool) -> None:
    from pipelines.operations.forgetting.registry import use_of

    objects = ", ".join(f"{count} from {name}" for name, count in done.objects.items()) or "none"
    deleted = [
        f"{counted(done.photos, 'photo')} forgotten; the dataset is {done.version.tag or 'empty or without a version'}",
        f"cached objects deleted: {objects}; records of photos deleted: {done.records}",
        f"tables rewritten: {done.tables['rewritten']}, deleted: {done.tables['deleted']}; pictures: {done.pictures}",
        f"run workspaces deleted: {', '.join(done.workspaces) or 'none'}; checkpoints: {done.checkpoints}; files "
        f"of drawn pictures: {done.drawn}",
        f"reports deleted: {', '.join(done.reports) or 'none'}",
    ]
    kept = "nothing was deleted" if done.remaining or done.beyond else "nothing is left to forget"
    lines = [f"{kept}: {done.earlier}"] if done.nothing_left else deleted
    for model in done.traces.models:
        aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
        version = f"model {model['name']} version {model['version']}{aliases}"
        lines.append(f"{version} was {use_of(model)} on them: train another")
    lines += [f"base in {folder} was trained on them: train another, and adapters on it" for folder in done.bases]
    lines += [f"MLflow run {item['run_id']}: {item['path']} may show them" for item in done.traces.artefacts]
    lines += [
        f"copy in {copy.folder} ({copy.what}, {copy.when}) {_holds(copy.what, copies_deleted)}" for copy in done.copies
    ]
    if not done.nothing_left:
        lines.append(
            "commit data/forgotten.jsonl and data/faces.dvc, so that every checkout of the project learns of it"
        )
    for line in lines:
        say(line)


def _holds(what: str, deleted: bool) -> str:
    if what in UNREADABLE:
        return "may hold them; delete it, if it does"
    return "held them and was deleted" if deleted else "holds them; --delete-copies deletes it"
