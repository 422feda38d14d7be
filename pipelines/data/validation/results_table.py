"""The table of results in Data Docs with what each expectation protects; Great Expectations loads it by its name.

Columns from `meta`, which older releases of Great Expectations show, end its renderers from release 1.0 on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from great_expectations.render import RenderedStringTemplateContent
from great_expectations.render.renderer.content_block.validation_results_table_content_block import (
    ValidationResultsTableContentBlockRenderer,
)

from pipelines.data.validation.check import WARN

# The columns beside those of Great Expectations, in the order of `meta["shown"]` of an expectation.
TITLES = ("If it fails", "Set by", "What it protects", "Rows")
_WARNING = {"classes": ["fas", "fa-exclamation-triangle", "text-warning"], "tag": "i"}


class ResultsTable(ValidationResultsTableContentBlockRenderer):
    """One row per expectation; a failed one that only warns has a sign of its own."""

    @classmethod
    def _process_content_block(cls, content_block: Any, has_failed_evr: Any, render_object: Any = None) -> None:
        super()._process_content_block(content_block, has_failed_evr, render_object)
        content_block.header_row += TITLES

    @classmethod
    def _get_content_block_fn(cls, expectation_type: str, expectation_config: Any = None) -> Callable[..., Any]:
        of_great_expectations = super()._get_content_block_fn(expectation_type, expectation_config)

        def row(result: Any = None, **given: Any) -> list[Any]:
            (cells,) = of_great_expectations(result=result, **given)
            meta = result.expectation_config.meta
            if not result.success and meta["severity"] == WARN:
                sign = {"template": "$icon", "params": {"icon": ""}, "styling": {"params": {"icon": _WARNING}}}
                cells[0] = RenderedStringTemplateContent(content_block_type="string_template", string_template=sign)
            return [cells + [[cell] for cell in meta["shown"]]]

        return row
