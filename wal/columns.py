"""Which columns a log can hold, and how two sets of them differ. Pure."""

from __future__ import annotations

import pyarrow as pa


def check_columns(name: str, schema: pa.Schema) -> None:
    """Whether rows of this schema go into single frames.

    Raises:
        ValueError: a column's type is a dictionary, or has one in it: that takes more than one Arrow message.
    """
    for field in schema:
        if _has_dictionary(field.type):
            raise ValueError(
                f"{name}: column {field.name} is {field.type}; log the values themselves, frames hold no dictionary"
            )


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    inner = (kind.field(n).type for n in range(kind.num_fields))
    return pa.types.is_dictionary(kind) or any(_has_dictionary(one) for one in inner)


def difference(wanted: pa.Schema, found: pa.Schema) -> str:
    """The first column of two schemas that differs, in words."""
    for n in range(max(len(wanted), len(found))):
        ours = wanted.field(n) if n < len(wanted) else None
        theirs = found.field(n) if n < len(found) else None
        if ours is None or theirs is None or not ours.equals(theirs):
            return f"column {n} is {theirs}, not {ours}"
    return "which differs in its metadata"
