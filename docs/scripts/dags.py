"""Write dags/reference.json, the form and the commands as the DAGs show them; `--check` only compares.

Airflow may run without the packages of the project, so its files read this one and import nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from page import finish

FILE = Path("dags/reference.json")


def field(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a field as Airflow's form reads it: alternatives are a list of types."""
    options = schema.pop("anyOf", [{}])
    merged = {key: value for key, value in schema.items() if key != "title"}
    for option in options:
        merged |= {key: value for key, value in option.items() if key != "type"}
    if types := [option["type"] for option in options if "type" in option]:
        merged["type"] = types
    if "enum" in merged and "null" in merged["type"]:
        merged["enum"] = [None, *merged["enum"]]
    return merged


def helps(command: Any, path: str = "", parent: Any = None) -> Iterator[tuple[str, str]]:
    """Yield the path of each command and the first paragraph of its help."""
    if not hasattr(command, "list_commands"):
        yield path, " ".join((command.help or "").split("\n\n")[0].split())
        return
    context = typer.Context(command, info_name=path, parent=parent)
    for name in command.list_commands(context):
        yield from helps(command.get_command(context, name), f"{path} {name}".strip(), context)


def main() -> int:
    """Write the file, or with `--check` return 1 where it is out of date."""
    from pipelines.cli import app
    from pipelines.registry.training_run import Form

    form = {name: field(schema) for name, schema in Form.model_json_schema()["properties"].items()}
    commands = dict(sorted(helps(typer.main.get_command(app))))
    return finish(json.dumps({"form": form, "commands": commands}, indent=1, ensure_ascii=False) + "\n", FILE)


if __name__ == "__main__":
    sys.exit(main())
