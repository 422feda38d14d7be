"""`dynamicid evaluate`: measure the adapter on held-out people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.chain import ADAPTER, HEADLINE, LOSSES_ANCHORING, LOSSES_IMR, METRICS, PROCESSED, REPORT


def evaluate(
    *,
    processed: Annotated[Path, option("Preprocessed photos.")] = Path(PROCESSED),
    adapter: Annotated[Path, option("Adapter to evaluate.")] = Path(ADAPTER),
    metrics: Annotated[Path, option("Metrics file to write (JSON).")] = Path(METRICS),
    report: Annotated[Path, option("HTML report to write.")] = Path(REPORT),
    protocol: Annotated[
        Literal["ours", "paper"] | None,
        option("Questions and metrics: this project's, or also the paper's; default: evaluate.protocol."),
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Generate held-out people with the model and its baselines, measure the pictures, write metrics and report."""
    from pipelines.evaluation.belonging import figure_text
    from pipelines.stages.evaluate import Inputs, Outputs, run
    from pipelines.versions.older import warn_if_older
    from pipelines.versions.state import EVALUATION, shared_state

    warn_if_older(Path.cwd(), processed)
    inputs = Inputs(
        processed=processed,
        adapter=adapter,
        # The chain's loss curves belong to the chain's adapter only.
        losses_anchoring=Path(LOSSES_ANCHORING) if adapter == Path(ADAPTER) else None,
        losses_imr=Path(LOSSES_IMR) if adapter == Path(ADAPTER) else None,
        work=shared_state(Path()) / EVALUATION,
    )
    changes = [*(overrides or ()), *([] if protocol is None else [f"evaluate.protocol={protocol}"])]
    # The headline is that of the chain's metrics.
    outputs = Outputs(metrics, report, Path(HEADLINE) if metrics == Path(METRICS) else None)
    document = run(read_params(params, changes), inputs, outputs)
    similarity, scaled = (table["model"]["id_similarity"] for table in (document, document["normalised"]))
    say(f"{metrics}: id_similarity {figure_text(similarity)}, s {figure_text(scaled)}; pictures in {report}")
    for name, figure in document.get("paper", {}).get("model", {}).items():
        say(f"paper's {name}: {figure_text(figure)}")
    emit_if_asked({"metrics": str(metrics), "report": str(report), "model": document["model"]})
