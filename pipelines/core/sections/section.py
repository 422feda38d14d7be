"""What every section of `params.yaml` is: frozen, closed to keys it does not know, each of its fields described."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen group of parameters that refuses unknown keys, NaN and infinite values.

    The docstring under a field is its description: `docs/scripts/parameters.py` puts it into the reference and beside
    the key in `profiles/tiny.yaml`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def keys_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the fields of a section by their keys in `params.yaml`."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section that an annotation such as `Parsing | None` or `tuple[Gate, ...]` holds, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)
