"""What the columns of an answer become in a file of Arrow or Parquet: each value exact, and of its own type.

ClickHouse writes some types into Arrow as bare numbers or bytes (enumerations, DateTime, addresses, wide integers),
and says of every String that it is text. So its own word on the types is asked for, and followed here. No decision
here looks at more than one batch: what a column becomes depends on its type alone.
"""

from __future__ import annotations

import ast
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recorder.cli.errors import Failure

_WRAPPER = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)", re.DOTALL)
_CHOICE = re.compile(r"('(?:[^'\\]|\\.|'')*') = (-?\d+)", re.DOTALL)
_ZONE = re.compile(r"DateTime\('([^']+)'\)")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_BARE = re.compile(
    r"\b(?:Enum(?:8|16)|DateTime|IPv4|IPv6|U?Int(?:128|256)|Variant|BFloat16|AggregateFunction)\b"
)
"""Types that Arrow gets as something else; inside of lists, maps and tuples nothing mends that."""


@dataclass(frozen=True)
class Column:
    """One column of the file: its field, and what makes its values of those of the answer."""

    field: pa.Field
    convert: Callable[[pa.Array], pa.Array]


def require_names(names: Iterable[str]) -> None:
    """See that each column has a name of its own.

    Raises:
        Failure: two have the same.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Failure(f'two columns are named "{name}"; give one of them another name with AS')
        seen.add(name)


def columns_of(answer: pa.Schema, types: Mapping[str, str], binary: Set[str]) -> tuple[Column, ...]:
    """The columns of a file.

    `types` are ClickHouse's of the answer's columns, empty where it does not tell them; `binary` names those Strings
    that are bytes and no text.

    Raises:
        Failure: two columns have one name, or a column's type has no exact form.
    """
    require_names(answer.names)
    return tuple(_column(field, types.get(field.name, ""), field.name in binary) for field in answer)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The schema of a file with these columns."""
    return pa.schema([column.field for column in columns])


def exact(batch: pa.RecordBatch, columns: tuple[Column, ...], schema: pa.Schema) -> pa.RecordBatch:
    """A batch of the answer as it stands in the file.

    Raises:
        Failure: a text is none.
    """
    arrays = [column.convert(array) for column, array in zip(columns, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, clickhouse: str, binary: bool) -> Column:
    given = field.type
    bare = _unwrapped(clickhouse)

    def becomes(wanted: pa.DataType, convert: Callable[[pa.Array], pa.Array]) -> Column:
        return Column(pa.field(field.name, wanted, field.nullable), convert)

    if pa.types.is_dictionary(given):
        inner = _column(field.with_type(given.value_type), clickhouse, binary)
        return Column(inner.field, lambda array: inner.convert(array.dictionary_decode()))
    if isinstance(given, pa.BaseExtensionType) and "json" in given.extension_name:
        return becomes(pa.string(), lambda array: _text(field.name, array.storage))
    if bare == "UUID" and given == pa.binary(16):
        return becomes(pa.uuid(), partial(pa.ExtensionArray.from_storage, pa.uuid()))
    if _is_string(given) and bare in ("", "String"):
        if binary:
            return becomes(pa.binary(), lambda array: array.cast(pa.binary()))
        return becomes(pa.string(), partial(_text, field.name))
    if pa.types.is_integer(given) and bare.startswith("Enum"):
        names = {int(number): ast.literal_eval(name) for name, number in _CHOICE.findall(bare)}
        return becomes(pa.string(), partial(_by_value, names.__getitem__))
    if pa.types.is_integer(given) and re.match(r"DateTime\b", bare):
        zone = _ZONE.fullmatch(bare)
        wanted = pa.timestamp("s", tz=zone[1] if zone else "UTC")
        return becomes(wanted, lambda array: array.cast(pa.int64()).cast(wanted))
    if pa.types.is_integer(given) and bare == "Date":
        return becomes(pa.date32(), lambda array: array.cast(pa.int32()).cast(pa.date32()))
    if bare in ("IPv4", "IPv6"):
        address = ipaddress.IPv4Address if bare == "IPv4" else _ipv6
        return becomes(pa.string(), partial(_by_value, lambda value: str(address(value))))
    if wide := re.fullmatch(r"(U?)Int(?:128|256)", bare):
        signed = not wide[1]
        return becomes(
            pa.string(), partial(_by_value, lambda value: str(int.from_bytes(value, "little", signed=signed)))
        )
    if odd := _BARE.search(_QUOTED.sub("''", bare)):
        raise Failure(
            f"column {field.name}: {odd[0]} in {clickhouse} has no exact form in this file; "
            "make text of it in the SQL, such as by toString() or toJSONString(), or export csv"
        )
    if pa.types.is_nested(given):
        return becomes(given, partial(_sound, field.name))
    return becomes(given, lambda array: array)


def _unwrapped(clickhouse: str) -> str:
    while found := _WRAPPER.fullmatch(clickhouse):
        clickhouse = found[1]
    return clickhouse


def _is_string(given: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(kind(given) for kind in kinds)


def _ipv6(value: bytes) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(value)


def _text(name: str, array: pa.Array) -> pa.Array:
    try:
        # By way of bytes: ClickHouse's word that it is text is not checked.
        return array.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise _no_text(name) from error


def _sound(name: str, array: pa.Array) -> pa.Array:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _no_text(name) from error
    return array


def _no_text(name: str) -> Failure:
    return Failure(
        f"column {name} holds bytes that are no UTF-8 text; have a String as bytes with --binary {name}, "
        "or write it in the SQL as hex()"
    )


def _by_value(text_of: Callable[[Any], str], array: pa.Array) -> pa.Array:
    """Texts of values that are few, or rare enough that one call each does no harm."""
    encoded = pc.dictionary_encode(array)
    texts = pa.array([text_of(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)
