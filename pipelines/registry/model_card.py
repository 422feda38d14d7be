"""The model card of a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.network.methods import METHODS
from pipelines.core.pages import markdown_table
from pipelines.core.params import Params
from pipelines.core.weights.licences import describe
from pipelines.evaluation.belonging import MADE_BY, figure_text, withheld
from pipelines.evaluation.headline import S, figures

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(
    params: Params,
    metrics: dict[str, Any],
    lineages: list[Any],
    networks: list[dict[str, Any]] | None,
    repository: str | None = None,
) -> str:
    """Render the card (Markdown) from parameters, `reports/metrics.json`, the stages' lineage and the networks.

    `lineages`: of the stages that made the adapter; empty for one that was not trained here. `networks`: those that
    formed it, with their licences; None where it does not record them. `repository`: the address from which the project
    is installed.
    """
    from jinja2 import Environment, StrictUndefined

    def shown(variant: str, metric: str) -> str:
        rows, name = (metrics["normalised"], "id_similarity") if metric == S else (metrics, metric)
        interval = rows.get(variant, {}).get(name)
        return "–" if interval is None else figure_text(interval)

    def row(metric: str, interval: dict[str, Any]) -> tuple[str, ...]:
        between = "–" if interval["value"] is None else f"{interval['low']:.3f} … {interval['high']:.3f}"
        return metric, shown("model", metric), between, shown("text_only", metric), shown("ceiling", metric)

    rows = [row(metric, interval) for metric, interval in metrics["model"].items()]
    if (s := figures(metrics).get(S)) is not None:
        rows.insert(0, row(S, s))
    terms = {True: "allowed", False: "forbidden", None: "unknown"}
    of_networks = [
        (
            *(describe(one), str(one["parameter"]), one["licence"] or "unknown"),
            *(terms[one[use]] for use in ("commercial", "redistribution")),
        )
        for one in networks or ()
    ]
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    last = lineages[-1] if lineages else None
    commit = None if last is None else last.git_commit
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        profile=params.profile,
        method=METHODS.get(metrics.get(MADE_BY, {}).get("method")),
        base=params.base.pipeline,
        trained_here=last,
        determinism=(params.train_anchoring.determinism, params.train_imr.determinism),
        figures=markdown_table(("metric", "value", "95 % interval", "text only", "ceiling"), rows),
        networks=markdown_table(("network", "parameter", "licence", "commercial use", "redistribution"), of_networks)
        if of_networks
        else None,
        paper={name: figure_text(one) for name, one in metrics.get("paper", {}).get("model", {}).items()},
        withheld=withheld(metrics),
        evaluation_set=metrics["evaluation_set"],
        model_name=params.register_.model_name,
        install=f"dynamicid[tracking] @ git+{repository}@{commit}" if repository and commit else None,
    )
