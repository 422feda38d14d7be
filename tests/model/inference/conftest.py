"""A pipeline with random models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.inference.pipeline import DynamicIDPipeline
from model.network.adapter import Adapter
from model.network.base import Base
from tests.model.inference.pictures import quiet


@pytest.fixture
def pipe(base: Base, make_adapter: Callable[..., Adapter]) -> DynamicIDPipeline:
    return quiet(DynamicIDPipeline.from_base(base, make_adapter(base)))
