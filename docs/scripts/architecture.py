"""Count and draw the rooms of the project: `make architecture`; `--check` only compares the drawing.

A room is a direct child of `pipelines`, or `model`, `dags` or `benchmarks`. A pair is a room and one that it imports.
A room's floor is 1 plus the length of its longest chain of pairs. The allowed order is that of the layers in
`pyproject.toml`, which `make lint` enforces.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import grimp
import networkx as nx
from page import ROOT, finish

PICTURE = Path("docs/pictures/rooms.svg")
Pair = tuple[str, str]
WIDTH = 860
BOX = (256, 48)
# Calls without an import: DAGs run the command line, which imports a command when it is called.
CALLS = (("dags", "cli"), ("cli", "commands"))
# Columns of rooms that leave space for an arrow; all other rooms of a row are side by side.
BESIDE = {"commands": 0, "benchmarks": 1, "serving": -0.5, "evaluation": -0.5, "model": -0.5, "core": 0.5}
WORDS = {
    "dags": "Airflow: types commands",
    "benchmarks": "scripts that measure",
    "cli": "the command line",
    "commands": "one file a command",
    "stages": "one file a stage of the chain",
    "webpage": "the page on which people draw",
    "operations": "servers, inbox, backup, forgetting",
    "registry": "MLflow, gates, promotion, drift",
    "serving": "from a request to a picture",
    "evaluation": "questions, judges, metrics, report",
    "data": "from a photo to a training row",
    "versions": "dataset versions, git, DVC",
    "core": "parameters, chain, errors, schemas",
    "model": "the method: torch and diffusers alone",
}
PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>Rooms of the project; an arrow is an import, a dashed one a call</title>
<style>
text {{ font-family: "DejaVu Sans", Verdana, sans-serif; text-anchor: middle; fill: #1f2933 }}
.name {{ font-size: 15px; font-weight: bold }} .words {{ font-size: 12px; fill: #52606d }}
.arrow {{ fill: none; stroke: #7b8794; stroke-width: 1.4 }}
rect {{ stroke: #52606d }} .room {{ fill: #e3f2fd }} .model {{ fill: #fff3e0 }} .outside {{ fill: #e8f5e9 }}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="#7b8794"/></marker></defs>
<rect width="{width}" height="{height}" style="fill: #ffffff; stroke: none"/>
{body}
</svg>
"""


def rooms_of(package: str, old_names: Iterable[str]) -> tuple[set[str], set[Pair]]:
    """Return the direct children of `package`, without the modules `old_names`, and their pairs."""
    graph = grimp.build_graph(package, cache_dir=None)
    rooms = {module.split(".")[1] for module in graph.modules if "." in module} - set(old_names)
    pairs = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = module.partition(".")[2].partition(".")[0], imported.partition(".")[2].partition(".")[0]
            if pair[0] != pair[1] and rooms.issuperset(pair):
                pairs.add(pair)
    return rooms, pairs


def imports_of_scripts(folder: str) -> set[str]:
    """Return the rooms that scripts in `folder` import."""
    rooms = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            rooms |= {name.split(".")[1] if name.startswith("pipelines.") else name.split(".")[0] for name in names}
    return rooms


def project_rooms(old_names: Iterable[str]) -> tuple[set[str], set[Pair]]:
    """Return the rooms of the whole project and their pairs."""
    rooms, pairs = rooms_of("pipelines", old_names)
    graph = grimp.build_graph("pipelines", "model", cache_dir=None)
    for module in graph.modules:
        room = module.partition(".")[2].partition(".")[0]
        if room in rooms and any(name.startswith("model.") for name in graph.find_modules_directly_imported_by(module)):
            pairs.add((room, "model"))
    rooms |= {"model", "dags", "benchmarks"}
    for folder in ("dags", "benchmarks"):
        pairs |= {(folder, room) for room in imports_of_scripts(folder) & (rooms - {folder})}
    return rooms, pairs


def floors_of(rooms: Iterable[str], pairs: Iterable[Pair]) -> dict[str, int]:
    """Return the floor of each room, counted from 1; raise ValueError where rooms import each other in a circle."""
    graph = nx.DiGraph(pairs)
    graph.add_nodes_from(rooms)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(f"rooms import in a circle: {nx.find_cycle(graph)}")
    floors: dict[str, int] = {}
    for room in reversed(list(nx.topological_sort(graph))):
        floors[room] = 1 + max((floors[below] for below in graph.successors(room)), default=0)
    return floors


def against_the_order(pairs: Iterable[Pair], layers: list[str]) -> set[Pair]:
    """Return the pairs that go up or sideways in `layers`, which are listed from the top down."""
    level = {room.strip(): number for number, layer in enumerate(layers) for room in layer.split("|")}
    return {pair for pair in pairs if pair[0] in level and pair[1] in level and level[pair[0]] >= level[pair[1]]}


def places_of(rooms: Iterable[str], layers: list[str]) -> dict[str, tuple[int, float]]:
    """Return row and column (in boxes from the middle) of each room; `dags` is the top row, `layers` follow."""
    rows = [["dags"], *(sorted(room.strip() for room in layer.split("|")) for layer in layers)]
    rows[2].append("benchmarks")
    rows[-1].append("model")
    return {
        room: (number, BESIDE.get(room, column - (len(row) - 1) / 2))
        for number, row in enumerate(rows)
        for column, room in enumerate(row)
        if room in rooms
    }


def draw(rooms: set[str], pairs: Iterable[Pair], layers: list[str]) -> str:
    """Return SVG with rooms as boxes, the lowest at the bottom; pairs that others imply are left out, calls dashed."""
    place = places_of(rooms, layers)
    centre = {room: (WIDTH / 2 + column * (BOX[0] + 24), 44 + row * 88) for room, (row, column) in place.items()}
    reduced = nx.transitive_reduction(nx.DiGraph([*pairs, *CALLS])).edges
    arrows = [(*pair, "") for pair in sorted(set(reduced) - set(CALLS))] + [
        (*call, ' stroke-dasharray="5 4"') for call in CALLS
    ]
    lines = []
    for above, below, dashes in arrows:
        (x0, y0), (x1, y1) = centre[above], centre[below]
        start, end = y0 + BOX[1] / 2, y1 - BOX[1] / 2 - 3
        bend = (end - start) / 2
        curve = f"M{x0:g} {start:g} C{x0:g} {start + bend:g} {x1:g} {end - bend:g} {x1:g} {end:g}"
        lines.append(f'<path d="{curve}" class="arrow"{dashes} marker-end="url(#head)"/>')
    for room, (x, y) in centre.items():
        kind = room if room == "model" else "outside" if room in ("dags", "benchmarks") else "room"
        left, top = x - BOX[0] / 2, y - BOX[1] / 2
        lines.append(f'<rect x="{left:g}" y="{top:g}" width="{BOX[0]}" height="{BOX[1]}" rx="7" class="{kind}"/>')
        lines.append(f'<text x="{x:g}" y="{y - 5:g}" class="name">{room}</text>')
        lines.append(f'<text x="{x:g}" y="{y + 14:g}" class="words">{WORDS[room]}</text>')
    height = 44 + max(row for row, _ in place.values()) * 88 + 44
    return PAGE.format(width=WIDTH, height=height, body="\n".join(lines))


def print_floors(name: str, rooms: Iterable[str], pairs: set[Pair], up: set[Pair]) -> None:
    """Print rooms by floor, and the pairs `up`, which are not allowed."""
    floors = floors_of(rooms, pairs)
    top = max(floors.values())
    print(f"{name}: {len(floors)} rooms, {top} floors, {len(pairs)} pairs, {len(up)} against the order")
    for floor in range(top, 0, -1):
        print(f"  {floor}  {'  '.join(sorted(room for room in floors if floors[room] == floor))}")
    for above, below in sorted(up):
        print(f"  against the order: {above} imports {below}")


def main() -> int:
    """Draw the rooms, print floors of the project and of `model`; return 1 where a pair is not allowed."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = {contract["containers"][0]: contract for contract in settings["contracts"] if "containers" in contract}
    whole, model = contracts["pipelines"], contracts["model"]
    rooms, pairs = project_rooms(whole.get("exhaustive_ignores", ()))
    wrong = against_the_order(pairs, whole["layers"])
    if "--check" not in sys.argv[1:]:
        print_floors("project", rooms, pairs, wrong)
        parts, between = rooms_of("model", ())
        up = against_the_order(between, model["layers"])
        print_floors("model", parts, between, up)
        wrong |= up
    return finish(draw(rooms, pairs, whole["layers"]), PICTURE) or int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
