"""Write docs/reference/parameters.md and the comments of profiles/tiny.yaml from `pipelines/core/sections`.

`--check` lists what is out of date, and writes nothing.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page import ROOT, finish

REFERENCE = Path("docs/reference/parameters.md")
TINY = Path("profiles/tiny.yaml")
WIDTH = 120
# Commands that read a section; `dvc.yaml` lists the stages that do.
COMMANDS: dict[str, tuple[str, ...]] = {
    "base": ("register", "generate", "app", "blind", "convert"),
    "ingest": ("ingest", "curate", "inbox"),
    "curate": ("curate",),
    "validate": (),
    "preprocess": ("curate", "inbox", "register", "generate", "app"),
    "validate_processed": (),
    "rights": ("export",),
    "caches": (),
    "train_anchoring": ("retrain", "convert", "foundation"),
    "train_imr": ("foundation",),
    "conventions": ("convert",),
    "evaluate": ("register", "generate", "app", "blind", "foundation"),
    "register": ("register", "drift", "retrain"),
    "drift": ("drift",),
    "keeping": ("clean", "inbox", "backup"),
    "inbox": ("inbox",),
    "retrain": ("retrain",),
    "export": ("export",),
    "serve": ("app", "register"),
}
TYPES = {"string": "text", "boolean": "true or false", "object": "mapping"}
BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
}  # fmt: skip
TABLE = "| key | type | range | default | what it is |\n|---|---|---|---|---|\n"
HEAD = f"""# Parameters

Every key of `params.yaml`. `dynamicid configure --profile NAME --set SECTION.KEY=VALUE` writes that file from a
profile. A stage runs again if a section that `dvc.yaml` lists for it changes. Unknown keys are refused.
`docs/scripts/parameters.py` writes this page from `pipelines/core/sections`.

{TABLE}"""


FORM = f"""
## The form of dynamicid_train

Not in `params.yaml`: what *Trigger* asks in Airflow, and `dynamicid retrain --form` takes as JSON.

{TABLE}"""


@dataclass(frozen=True)
class Key:
    """A key of `params.yaml` by its dotted path; `inner` is true for a section or a list of sections."""

    path: str
    schema: dict[str, Any]
    default: str
    text: str
    inner: bool


def keys_of(
    schema: dict[str, Any], sections: dict[str, Any], path: str = "", values: dict[str, Any] | None = None
) -> Iterator[Key]:
    """Yield the keys of a section and of the sections in it; raise ValueError for a key without a description.

    `values` is the default of the whole section, if it has one.
    """
    for name, field in schema["properties"].items():
        held, place = referred(field)
        inner = sections[held] if held else {}
        text = field.get("description") or inner.get("description")
        if not text:
            raise ValueError(f"{path}{name}: expected a description of the field")
        default = (values or {}).get(name, field.get("default", {}))
        required = name in schema.get("required", ()) and not values
        yield Key(path + name, field, "required" if required else as_yaml(default), text, bool(held))
        if held:
            yield from keys_of(inner, sections, f"{path}{name}{place}.", default if isinstance(default, dict) else None)


def referred(field: dict[str, Any]) -> tuple[str, str]:
    """Return the section that a field holds and the text between their keys; two empty strings without a section."""
    places = [(field, ""), (field.get("items", {}), "[]"), (field.get("additionalProperties", {}), ".NAME")]
    places += [(option, "") for option in field.get("anyOf", ())]
    return next(((part["$ref"].rsplit("/", 1)[1], place) for part, place in places if "$ref" in part), ("", ""))


def as_yaml(value: Any) -> str:
    """Return a default in code quotes, as in `params.yaml`."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def type_of(field: dict[str, Any]) -> str:
    """Return the name of a key's type, or its allowed values."""
    if "anyOf" in field:
        return " or ".join(map(type_of, field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        parts = field.get("prefixItems")
        return f"{len(parts)} × {type_of(parts[0])}" if parts else f"list of {type_of(field['items'])}"
    return TYPES.get(field["type"], field["type"]) if "type" in field else "section"


def range_of(field: dict[str, Any]) -> str:
    """Return the bounds of a key such as `≥ 0, ≤ 1`, or nothing."""
    options = (field, *field.get("anyOf", ()))
    return ", ".join(text.format(f"{part[key]:,}") for part in options for key, text in BOUNDS.items() if key in part)


def reference(schema: dict[str, Any]) -> str:
    """Return the page of all keys, with one table per section."""
    from pipelines.cli import COMMANDS as ALL_COMMANDS
    from pipelines.core.chain import stages
    from pipelines.registry.training_run import Form

    sections = schema["$defs"]
    if wrong := set().union(*COMMANDS.values()) - set(ALL_COMMANDS):
        raise ValueError(f"no such commands: {sorted(wrong)}")
    keys = list(keys_of(schema, sections))
    page = [HEAD]
    for key in keys:
        name, _, rest = key.path.partition(".")
        if not key.inner:
            page.append(row(rest or name, key))
        elif not rest:
            running = tuple(stage.name for stage in stages() if name in stage.sections)
            readers = {"Stages": running, "Commands": COMMANDS[name]}
            read_by = " ".join(f"{kind}: `{'`, `'.join(names)}`." for kind, names in readers.items() if names)
            page.append(f"\n## {name}\n\n{paragraphs(key.text)}\n\n{paragraphs(read_by)}\n\n")
            for inner in keys:
                if inner.inner and inner.path.startswith(f"{name}."):
                    page.append(f"* `{inner.path.partition('.')[2]}`: {' '.join(inner.text.split())}\n")
            page.append("\n" * page[-1].startswith("*"))
            page.append(TABLE)
    return "".join([*page, FORM, *(row(key.path, key) for key in keys_of(Form.model_json_schema(), {}))])


def row(name: str, key: Key) -> str:
    """Return the line of a key in a table."""
    cells = (f"`{name}`", type_of(key.schema), range_of(key.schema), key.default, key.text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def paragraphs(text: str) -> str:
    """Return `text` with each paragraph wrapped to `WIDTH`."""
    return "\n\n".join(textwrap.fill(part, WIDTH) for part in text.split("\n\n"))


def commented(text: str, schema: dict[str, Any]) -> str:
    """Return the text of a profile with each key's description after it, or above it where the line is too long.

    The comment at the top of the file and all values stay; all other comments are replaced.
    """
    keys = {key.path: key for key in keys_of(schema, schema["$defs"])}
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    written, parents = lines[:head], []
    for line in lines[head:]:
        bare = re.sub(r"(^|\s+)#.*$", "", line)
        if not (match := re.match(r"( *)([\w]+):", bare)):
            written += [bare] if bare.strip() else []
            continue
        indent, name = match.groups()
        parents = [*parents[: len(indent) // 2], name]
        key = keys.get(".".join(parents))
        comment = f"# {note(key)}" if key else ""
        if not indent and key and key.inner:
            written += ["", *textwrap.wrap(comment, WIDTH, subsequent_indent="# "), bare]
        elif len(f"{bare}  {comment}") <= WIDTH:
            written.append(f"{bare}  {comment}".rstrip())
        else:
            written += [*textwrap.wrap(comment, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}# "), bare]
    return "\n".join(written) + "\n"


def note(key: Key) -> str:
    """Return the first paragraph of a key's description, with its choices, or its range if it has two bounds."""
    bounds, choices = range_of(key.schema), type_of(key.schema)
    more = choices.replace("`", "") if "enum" in key.schema else bounds if "," in bounds else ""
    return " ".join(key.text.split("\n\n")[0].split()) + f" [{more}]" * bool(more)


def main() -> int:
    """Write both files; with `--check` list those that are out of date, and return 1 where there are any."""
    from pipelines.core.params import Params

    schema = Params.model_json_schema(by_alias=True)
    profile = commented((ROOT / TINY).read_text(encoding="utf-8"), schema)
    return finish(reference(schema), REFERENCE) | finish(profile, TINY)


if __name__ == "__main__":
    sys.exit(main())
