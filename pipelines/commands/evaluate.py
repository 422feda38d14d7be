"""`dynamicid evaluate`: judge the adapter on held-out people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pipelines.commands.options import DEFAULT_PARAMS, Overrides, ParamsFile, option, read_params
from pipelines.commands.output import emit_if_asked, say
from pipelines.core.chain import ADAPTER, LOSSES_ANCHORING, LOSSES_IMR, METRICS, PROCESSED, REPORT


def evaluate(
    *,
    processed: Annotated[Path, option("Processed photos.")] = Path(PROCESSED),
    adapter: Annotated[Path, option("The adapter to judge.")] = Path(ADAPTER),
    metrics: Annotated[Path, option("Where the numbers go.")] = Path(METRICS),
    report: Annotated[Path, option("Where the page with pictures goes.")] = Path(REPORT),
    params: ParamsFile = DEFAULT_PARAMS,
    overrides: Overrides = None,
) -> None:
    """Draw held-out people with every variant, let the judges read the pictures, write metrics and report."""
    from pipelines.stages.evaluate import Inputs, Outputs, run

    inputs = Inputs(
        processed=processed,
        adapter=adapter,
        # Only the chain's own adapter belongs to the chain's loss curves.
        losses_anchoring=Path(LOSSES_ANCHORING) if adapter == Path(ADAPTER) else None,
        losses_imr=Path(LOSSES_IMR) if adapter == Path(ADAPTER) else None,
    )
    document = run(read_params(params, overrides), inputs, Outputs(metrics=metrics, report=report))
    say(
        f"{metrics}: id_similarity {document['model']['id_similarity']['value']:.3f}, "
        f"s {document['normalised']['model']['id_similarity']['value']:.2f}; pictures in {report}"
    )
    emit_if_asked({"metrics": str(metrics), "report": str(report), "model": document["model"]})
