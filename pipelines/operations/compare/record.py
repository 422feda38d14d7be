"""The runs of a comparison in MLflow: one for every cell, under one parent."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.core.params import Params
from pipelines.operations.compare.evaluate import METRICS, REPORT
from pipelines.operations.compare.train import ADAPTER, STAGES
from pipelines.registry.champion_metrics import conditions, photos_of
from pipelines.registry.contents import describe_run, evaluation_metrics, flatten, log_tables
from pipelines.registry.lineage import source_tags
from pipelines.registry.registry import open_registry
from pipelines.registry.runs import PARENT, log_values, open_run, search_runs
from pipelines.registry.tracking import Tracking

_STAGE, _CELL = "compare", "compare_cell"
_TRAINED, _EVALUATED = ("caches", "train_anchoring", "train_imr"), ("base", "rights", "preprocess", "evaluate")


class Recorder:
    """Records the cells of one comparison under its run."""

    def __init__(self, client: Tracking, root: Path, parent: str, shown: Mapping[str, str]) -> None:
        self._client, self._root, self._shown = client, root, shown
        self.parent = parent

    def known(self, key: str) -> str | None:
        """Return the finished run of the cell `key`, None where there is none."""
        found = search_runs(self._client, "FINISHED", {"cell": key, PARENT: self.parent}, 1)
        return str(found[0].info.run_id) if found else None

    @contextmanager
    def cell(self, key: str, name: str, method: str) -> Iterator[str]:
        """Yield the run of the cell `key`, which ends with the block; that of an earlier attempt is continued."""
        earlier = search_runs(self._client, None, {"cell": key, PARENT: self.parent}, 1)
        tags = {"stage": _CELL, "cell": key, "method": method}
        named = {f"dynamicid.{tag}": value for tag, value in tags.items()} | dict(self._shown)
        named |= {PARENT: self.parent, **source_tags(self._root, "compare")}
        known = earlier[0].info.run_id if earlier else None
        with open_run(self._client, name, named, run_id=known) as run_id:
            yield run_id

    def log(
        self, run_id: str, params: Params, document: Mapping[str, Any], evaluation: Path, cost: Mapping[str, Any] | None
    ) -> None:
        """Log parameters, metrics and files of a cell to its run; `cost` is None where nothing was trained."""
        from mlflow.entities import Metric

        client, at, contents = self._client, round(time.time() * 1000), dict(document)
        numbers = evaluation_metrics(contents)
        given = params.model_dump(mode="json", by_alias=True)
        sections = _EVALUATED if cost is None else (*_TRAINED, *_EVALUATED)
        leaves = {key: str(value)[:6000] for name in sections for key, value in flatten(given[name], name)}
        points = [Metric(key, value, at, 0) for key, value in (numbers | _numbers(cost)).items()]
        log_values(client, run_id, leaves, points)
        client.set_tag(run_id, "dynamicid.conditions", conditions(contents))
        client.set_tag(run_id, "dynamicid.evaluation_set", contents["evaluation_set"])
        client.set_tag(run_id, "mlflow.note.content", describe_run("evaluate", contents, numbers, restored=False))
        log_tables(client, run_id, contents)
        client.log_artifact(run_id, str(evaluation / METRICS))
        if self._shown:  # the report shows people: `forget` finds it by their dataset
            client.log_artifact(run_id, str(evaluation / REPORT))

    def log_training(self, run_id: str, folder: Path) -> None:
        """Log the loss curves of a training as metrics `<stage>.loss` …, and what the adapter says of itself."""
        from mlflow.entities import Metric

        at, found = round(time.time() * 1000), []
        for stage in STAGES:
            with (folder / stage / "losses.csv").open(encoding="utf-8", newline="") as handle:
                for row in csv.DictReader(handle):
                    step = int(row.pop("step"))
                    known = ((key, float(text)) for key, text in row.items() if text not in ("", "nan"))
                    found += [Metric(f"{stage}.{key}", value, at, step) for key, value in known]
        log_values(self._client, run_id, {}, found)
        self._client.log_artifact(run_id, str(folder / ADAPTER / "config.json"))

    def log_results(self, files: Sequence[Path], document: Mapping[str, Any]) -> None:
        """Log the results of all cells to the comparison's run; the page only where the dataset is known."""
        for file in files:
            if self._shown or file.suffix != ".html":
                self._client.log_artifact(self.parent, str(file))
        self._client.set_tag(self.parent, "dynamicid.evaluation_set", str(document["evaluation_set"]))


@contextmanager
def recording(root: Path, key: str, names: Sequence[str]) -> Iterator[Recorder]:
    """Yield the recorder of the comparison `key`; its run ends with the block. That of a killed one is continued."""
    client = open_registry(root)
    shown = photos_of(root)
    tags = {"stage": _STAGE, "comparison": key, "rows": json.dumps(list(names))}
    named = {f"dynamicid.{tag}": value for tag, value in tags.items()} | shown | source_tags(root, "compare")
    named["mlflow.note.content"] = f"A comparison of {', '.join(names)}: a run for each of them and each seed.\n"
    earlier = search_runs(client, None, {"stage": _STAGE, "comparison": key}, 1)
    if earlier and earlier[0].info.status == "FINISHED":
        yield Recorder(client, root, earlier[0].info.run_id, shown)
        return
    known = earlier[0].info.run_id if earlier else None
    with open_run(client, f"compare {', '.join(names)}"[:250], named, run_id=known) as parent:
        yield Recorder(client, root, parent, shown)


def _numbers(cost: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the cost of a training as metrics."""
    leaves = flatten(dict(cost or {}), "cost")
    return {key: float(value) for key, value in leaves if isinstance(value, int | float)}
