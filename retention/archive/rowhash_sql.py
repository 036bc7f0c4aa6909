"""The sum hash of rows as one question to ClickHouse: what `rowhash` computes of batches, without sending a row. Pure.

A hash uses each of its words several times, and SQL has no variables that are computed once: an alias is written out
wherever it stands. So each step is a column of a subquery of its own, some twenty deep, which the engine runs at once.

A value within arrays is a word within arrays: what is done with a value is done by `arrayMap` with those of an array.
Times and floats that `rowhash` knows and this does not (`DateTime64` of another zone than UTC, `JSON`, `Tuple`, …)
are not summed; whoever asks gets None.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from retention.archive.rowhash import LOG, SEQ, TIME
from schemas.quote import quote_name, quote_text

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_NULL = 0x6A09E667F3BCC909
_NAN = 0x7FF8000000000000
_STEP = re.compile(r"\b_w\d+\b")
_WRAPPED = re.compile(r"(Nullable|LowCardinality|Array)\((.*)\)", re.DOTALL)
_MAP = re.compile(r"Map\((String|LowCardinality\(String\)), (.*)\)", re.DOTALL)
_INTEGER = re.compile(r"U?Int(?:8|16|32|64)|Bool|IPv4|DateTime(?:\('.*'\))?|Enum(?:8|16)\(.*\)", re.DOTALL)
_DATE = re.compile(r"Date(?:32)?")
_TIME = re.compile(r"DateTime64\([0369], 'UTC'\)")
_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")
_TEXT = re.compile(r"String|FixedString\(\d+\)")


def sums_sql(columns: Mapping[str, str], rows_sql: str) -> str | None:
    """A statement that answers with `rows, row_sum, identity_sum, min_ts_local_ns, max_ts_local_ns`, as `Sums`.

    `columns` are ClickHouse's types by name, `rows_sql` is what follows on SELECT: `FROM … WHERE …`. None where a
    column is of a type that has no rule here, or there is no identity.
    """
    if columns.get(LOG) != "UInt64" or columns.get(SEQ) != "UInt64" or any(map(_STEP.search, columns)):
        return None
    steps = _Steps()
    try:
        total = " + ".join(_column(steps, name, kind).name for name, kind in columns.items())
    except _NoRule:
        return None
    row = steps.mixed(total).name
    log = steps.mixed(f"{steps.column(LOG).name} + {_word(GOLDEN)}").name
    identity = steps.mixed(f"{log} + {steps.column(SEQ).name}").name
    times = "NULL, NULL"
    if re.fullmatch(rf"{_TIME.pattern}|Nullable\({_TIME.pattern}\)", columns.get(TIME, "")):
        time = steps.column(TIME).name
        times = ", ".join(
            f"toUnixTimestamp64Nano(toDateTime64({one}({time}), 9, 'UTC'))" for one in ("min", "max")
        )
    return steps.nested(f"count(), sumWithOverflow({row}), sumWithOverflow({identity}), {times}", rows_sql)


class _NoRule(Exception):  # noqa: N818 - an answer, no fault
    """A type that cannot be summed in SQL."""


@dataclass(frozen=True)
class _Value:
    """A column of a subquery: a word or a value, within so many arrays."""

    name: str
    depth: int


class _Steps:
    """Expressions by the subquery that computes them: 0 is the table, each further one needs the one before."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._expressions: dict[str, str] = {}
        self._columns: dict[str, _Value] = {}

    def column(self, name: str) -> _Value:
        """A column of the table."""
        if name not in self._columns:
            self._columns[name] = self._let(quote_name(name))
        return self._columns[name]

    def mixed(self, expression: str) -> _Value:
        """`mix` of a word."""
        return self.mix(self._let(expression))

    def mix(self, word: _Value) -> _Value:
        """`mix` of a word, or of each in arrays."""
        for shift, factor in ((30, FIRST), (27, SECOND)):
            word = self.each(f"bitXor({{0}}, bitShiftRight({{0}}, {shift})) * {_word(factor)}", word)
        return self.each("bitXor({0}, bitShiftRight({0}, 31))", word)

    def each(self, form: str, *values: _Value, to: int = 0) -> _Value:
        """An expression of values of one depth, `{0}` and so on in `form`; what it makes is `to` arrays deeper."""
        depth = values[0].depth

        def at(level: int, names: list[str]) -> str:
            if level == depth:
                return form.format(*names)
            inner = [f"a{level}_{number}" for number in range(len(names))]
            return f"arrayMap(({', '.join(inner)}) -> {at(level + 1, inner)}, {', '.join(names)})"

        return _Value(self._let(at(0, [value.name for value in values])).name, depth + to)

    def nested(self, told: str, rows_sql: str) -> str:
        """The whole question."""
        wanted = set(_STEP.findall(told))
        outer = f"SELECT {told} FROM "
        closing = ""
        for level in range(max(self._levels.values()), 0, -1):
            mine = [name for name in self._levels if self._levels[name] == level and name in wanted]
            carried = sorted(name for name in wanted if self._levels[name] < level)
            made = [f"{self._expressions[name]} AS {name}" for name in mine]
            outer += f"(SELECT {', '.join(made + carried)} {'FROM ' if level > 1 else rows_sql}"
            closing += ")"
            wanted = {*carried, *(used for name in mine for used in _STEP.findall(self._expressions[name]))}
        return outer + closing

    def _let(self, expression: str) -> _Value:
        name = f"_w{len(self._levels)}"
        self._levels[name] = 1 + max((self._levels[used] for used in _STEP.findall(expression)), default=0)
        self._expressions[name] = expression
        return _Value(name, 0)


def _column(steps: _Steps, name: str, kind: str) -> _Value:
    """What a column adds to the sum of a row."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return steps.mixed(f"{_hash(steps, steps.column(name), kind).name} + {_word(seed)}")


def _hash(steps: _Steps, value: _Value, kind: str) -> _Value:
    """The hash of each value of a type, within as many arrays as the value.

    Raises:
        _NoRule: there is none.
    """
    if wrapped := _WRAPPED.fullmatch(kind):
        outer, inner = wrapped.groups()
        match outer:
            case "LowCardinality":
                # What maps arrays does not take a dictionary.
                return _hash(steps, steps.each(f"CAST({{0}}, {quote_text(inner)})", value), inner)
            case "Nullable":
                found = _hash(steps, steps.each("assumeNotNull({0})", value), inner)
                return steps.each(f"if(isNull({{0}}), {_word(_NULL)}, {{1}})", value, found)
            case _:
                items = _Value(value.name, value.depth + 1)
                return _folded(steps, _hash(steps, items, inner), steps.each("length({0})", value))
    if pairs := _MAP.fullmatch(kind):
        keys, values = (
            _hash(steps, steps.each(f"map{side}({{0}})", value, to=1), inner)
            for side, inner in zip(("Keys", "Values"), pairs.groups(), strict=True)
        )
        both = steps.each("[{0}, {1}]", keys, values, to=1)
        items = _folded(steps, both, steps.each("length({0})", _Value(both.name, both.depth - 1)))
        return _folded(steps, items, steps.each("length({0})", value))
    if _TEXT.fullmatch(kind):
        return _bytes(steps, value)
    if kind == "UUID":
        return _bytes(steps, steps.each("UUIDStringToNum(toString({0}))", value))
    if kind == "IPv6":
        return _bytes(steps, steps.each("reinterpretAsFixedString({0})", value))
    if decimal := _DECIMAL.fullmatch(kind):
        return _decimal(steps, value, int(decimal[1]), int(decimal[2]))
    return steps.mix(steps.each(_bits(kind), value))


def _bits(kind: str) -> str:
    """A value of a fixed width as its 64 bits."""
    if _INTEGER.fullmatch(kind):
        return "toUInt64({0})"
    if _DATE.fullmatch(kind):
        return "toUInt64(toInt32({0}))"
    if _TIME.fullmatch(kind):
        return "toUInt64(reinterpretAsInt64({0}))"
    if kind in ("Float32", "Float64"):
        return f"if(isNaN({{0}}), {_word(_NAN)}, reinterpretAsUInt64(toFloat64({{0}})))"
    raise _NoRule


def _decimal(steps: _Steps, value: _Value, digits: int, scale: int) -> _Value:
    """As Arrow has it: of 16 bytes, or of 32 where there are more than 38 digits."""
    width = 16 if digits <= 38 else 32
    wide = 38 if digits <= 38 else 76
    number = steps.each(f"reinterpret(CAST({{0}}, 'Decimal({wide}, {scale})'), 'Int{width * 8}')", value)
    words = ", ".join(f"toUInt64(bitShiftRight({{0}}, {shift}))" for shift in range(0, width * 8, 64))
    return _folded(steps, steps.each(f"[{words}]", number, to=1), steps.each(f"{width}", value))


def _bytes(steps: _Steps, value: _Value) -> _Value:
    length = steps.each("length({0})", value)
    # Not by a function of each word's place: the engine would copy the whole text for each of them.
    filled = "concat({0}, substring(unhex('00000000000000'), 1, modulo(8 - modulo({1}, 8), 8)))"
    words = steps.each(f"reinterpret({filled}, 'Array(UInt64)')", value, length, to=1)
    return _folded(steps, words, length)


def _folded(steps: _Steps, items: _Value, lengths: _Value) -> _Value:
    """One hash for each array of words, of its words by their places and of a length."""
    whole = _Value(items.name, items.depth - 1)
    places = steps.each("arrayEnumerate({0})", whole, to=1)
    terms = steps.mix(steps.each(f"{{0}} + {{1}} * {_word(GOLDEN)}", items, places))
    sums = steps.each("arraySum({0})", _Value(terms.name, whole.depth))
    ends = steps.mix(steps.each("toUInt64({0})", lengths))
    return steps.mix(steps.each("{0} + {1}", sums, ends))


def _word(number: int) -> str:
    return f"toUInt64({number})"
