"""The base class of all sections of `params.yaml`, and types that their fields share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
ChannelOrder = Literal["rgb", "bgr"]
# What a network knows.
Domain = Literal["drawn", "photograph", "any"]
Sampler = Literal["ddim", "dpm", "euler", "lcm"]


class Section(BaseModel):
    """A frozen group of parameters that refuses unknown keys, NaN and infinite values.

    `docs/scripts/parameters.py` writes the description of each field into the reference and into `profiles/tiny.yaml`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def keys_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the fields of a section by their keys in `params.yaml`."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section class in an annotation such as `Parsing | None` or `tuple[Gate, ...]`; None without one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)
