"""Count and draw the rooms of the project: `make architecture`.

A room is a direct child of `pipelines`; `model`, `dags` and `benchmarks` are one each. A pair is one room importing
another, however many lines do it. A floor is a level of the longest chain of pairs. The order is that of the layers in
`pyproject.toml`, which `make lint` enforces.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import grimp
import matplotlib
import networkx as nx

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
Pair = tuple[str, str]


def rooms_of(package: str, old_names: Iterable[str]) -> tuple[set[str], set[Pair]]:
    """Return the direct children of `package`, without modules that keep an old name alive, and their pairs."""
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
    """Return the rooms that the scripts of a folder, which is no package, import."""
    found = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.split(".")[1] if name.startswith("pipelines.") else name.split(".")[0] for name in names}
    return found


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
    """Return the floor of each room, the ground floor being 1; raise ValueError where rooms import in a circle."""
    graph = nx.DiGraph(pairs)
    graph.add_nodes_from(rooms)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(f"rooms import in a circle: {nx.find_cycle(graph)}")
    floors: dict[str, int] = {}
    for room in reversed(list(nx.topological_sort(graph))):
        floors[room] = 1 + max((floors[below] for below in graph.successors(room)), default=0)
    return floors


def against_the_order(pairs: Iterable[Pair], layers: list[str]) -> set[Pair]:
    """Return the pairs that go up or sideways in `layers`, listed from the top floor down."""
    level = {room.strip(): number for number, layer in enumerate(layers) for room in layer.split("|")}
    return {pair for pair in pairs if pair[0] in level and pair[1] in level and level[pair[0]] >= level[pair[1]]}


def draw(floors: dict[str, int], pairs: Iterable[Pair], file: Path) -> None:
    """Draw rooms as boxes on their floors; a pair that others imply is left out."""
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "sans-serif"}
    import matplotlib.pyplot as plt

    by_floor = {floor: sorted(room for room in floors if floors[room] == floor) for floor in set(floors.values())}
    place = {
        room: (3.2 * (number - (len(names) - 1) / 2), floor)
        for floor, names in by_floor.items()
        for number, room in enumerate(names)
    }
    figure, axes = plt.subplots(figsize=(8, 1 + 0.95 * len(by_floor)))
    for above, below in nx.transitive_reduction(nx.DiGraph(pairs)).edges:
        axes.annotate(
            "", place[below], place[above],
            arrowprops={"arrowstyle": "-|>", "color": "#90a4ae", "shrinkA": 13, "shrinkB": 13, "linewidth": 1.1},
        )  # fmt: skip
    for room, (x, y) in place.items():
        colour = "#fff3e0" if room == "model" else "#e8f5e9" if room in ("dags", "benchmarks") else "#e3f2fd"
        box = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "#546e7a"}
        axes.text(x, y, room, ha="center", va="center", fontsize=11, bbox=box)
    axes.set_xlim(-6, 6)
    axes.set_ylim(0.5, len(by_floor) + 0.5)
    axes.axis("off")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})


def main() -> int:
    """Print the counts of the project and of `model` alone, and draw the project's rooms; 1 where a pair goes up."""
    sys.path.insert(0, str(ROOT))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = {contract["containers"][0]: contract for contract in settings["contracts"] if "containers" in contract}
    old_names = contracts["pipelines"].get("exhaustive_ignores", ())
    wrong = 0
    for name, (rooms, pairs) in (("project", project_rooms(old_names)), ("model", rooms_of("model", ()))):
        package = "pipelines" if name == "project" else name
        up = against_the_order(pairs, contracts[package]["layers"])
        wrong += len(up)
        floors = floors_of(rooms, pairs)
        top = max(floors.values())
        print(f"{name}: {len(rooms)} rooms, {top} floors, {len(pairs)} pairs, {len(up)} against the order")
        for floor in range(top, 0, -1):
            print(f"  {floor}  {'  '.join(sorted(room for room in rooms if floors[room] == floor))}")
        for above, below in sorted(up):
            print(f"  against the order: {above} imports {below}")
        if name == "project":
            draw(floors, pairs, PICTURE)
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
