"""The one form in which people's names are stored and compared."""

from __future__ import annotations

import unicodedata
from typing import overload


@overload
def normal_name(name: str) -> str: ...
@overload
def normal_name(name: None) -> None: ...
def normal_name(name: str | None) -> str | None:
    """Return a person's name in Unicode's composed form (NFC), its white space collapsed; None where it is None.

    File systems and archives write the same letter composed or decomposed: both are one person. Upper and lower case
    differ, since `anna` and `Anna` may be two people: nobody's data is deleted because of somebody else's name.
    """
    return name if name is None else " ".join(unicodedata.normalize("NFC", name).split())
