"""Whatever value comes, it arrives in Arrow exactly as it is, or it is refused: never a silent change."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from recorder.convert import EARLIEST_TIME_NS, BadColumn, bad_values, converter
from schemas import columns
from schemas.columns import Column, Kind, choice


class Side(enum.StrEnum):
    BUY = "buy"


class Size(enum.IntEnum):
    ONE = 1


class OwnText(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not me"


def column(alias: Any, *, nullable: bool = False) -> Column:
    return Column("c", alias.__metadata__[0] if hasattr(alias, "__metadata__") else alias, nullable)


COLUMNS = {
    "time": columns.TimeNs,
    "u32": columns.UInt32,
    "u64": columns.UInt64,
    "i64": columns.Int64,
    "float": columns.Float,
    "money": columns.Money,
    "text": columns.Text,
    "name": columns.Name,
    "payload": columns.Payload,
    "bool": columns.Bool,
    "floats": columns.Floats,
    "tags": columns.Tags,
    "choice": choice("buy", "sell"),
}

numpy_scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.integers(-128, 127).map(np.int8),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.floats(width=16).map(np.float16),
    st.booleans().map(np.bool_),
    st.floats().map(np.longdouble),
    st.just(np.longdouble("0.1")),
    st.just(np.longdouble(2) ** 70),
)
decimal_texts = st.one_of(
    st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        [
            "",
            " 1",
            "1 ",
            "1_000",
            "0x10",
            "NaN",
            "inf",
            "-Infinity",
            "1e5",
            "1E+5",
            "1e400",
            "0e999",
            "١٢",
            "1,5",
            "e5",
            "99999999999999999999.999999999999999999",
            "99999999999999999999.9999999999999999995",
            "1e2147483648",
            "--1",
            "100000000000000000000",
            "1e-18",
            "1e-19",
            "0.0000000000000000001",
            "1\x00",
            "1\n",
            "-0",
            "-0.0",
        ]
    ),
)
texts = st.one_of(
    st.text(),
    st.text(st.characters(codec=None, categories=None)),
    st.just("\ud800"),
    st.just("a\x00b"),
    st.sampled_from(["buy", "sell", "BUY", " buy"]),
    st.just(OwnText("buy")),
    st.just(Side.BUY),
)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    texts,
    decimal_texts,
    st.binary(),
    st.binary().map(bytearray),
    st.binary().map(memoryview),
    numpy_scalars,
    st.just(Size.ONE),
    st.just(object()),
    st.just(5 + 0j),
    st.lists(
        st.one_of(st.floats(), st.integers(), st.booleans(), numpy_scalars, st.none(), st.text(max_size=3)),
        max_size=4,
    ),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
    st.lists(st.floats(width=32), max_size=4).map(lambda values: np.array(values, np.float32)),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(lambda values: np.array(values, np.int64)),
    st.dictionaries(texts, st.one_of(texts, st.integers(), st.none()), max_size=3),
    st.sampled_from(
        [np.array(5), np.array([1]), np.array([[1.0]]), np.datetime64("2026-01-01", "ns"), range(3), "1.5"]
    ),
    st.integers(1_600_000_000, 1_900_000_000).flatmap(
        lambda s: st.sampled_from([s, s * 1_000, s * 1_000_000, s * 1_000_000_000, float(s) * 1e9])
    ),
)


def number(value: Any) -> Any:
    """A number of any kind as an exact one, to compare with; None where it is no number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()  # numpy counts with these as with numbers
    if isinstance(value, bool | np.bool_) or value is None:
        return None
    if isinstance(value, np.longdouble):
        return Decimal(np.format_float_positional(value, unique=True)) if np.isfinite(value) else None
    if isinstance(value, int | np.integer):
        return Decimal(int(value))
    if isinstance(value, float | np.floating):
        return Decimal(float(value)) if math.isfinite(value) else None
    return None


def same_float(given: Any, stored: float) -> bool:
    return (
        number(given) is not None
        and number(given) == Decimal(stored)
        and (not isinstance(given, float) or math.copysign(1, given) == math.copysign(1, stored))
    )


def text_of(value: Any) -> str | None:
    return (
        "".join(value) if isinstance(value, str) else None
    )  # the characters, whatever a subclass says of itself


def exact(kind: Kind, given: Any, stored: pa.Scalar) -> bool:
    """Whether what is stored is what was given."""
    if given is None or not stored.is_valid:
        return given is None and not stored.is_valid
    match kind:
        case Kind.TIME:
            ticks = stored.cast(pa.int64()).as_py()
            return (
                number(given) == ticks
                and not isinstance(given, float | np.floating)
                and ticks >= EARLIEST_TIME_NS
            )
        case Kind.INT:
            return number(given) == stored.as_py() and not isinstance(given, float | np.floating)
        case Kind.FLOAT:
            return same_float(given, stored.as_py())
        case Kind.DECIMAL:
            if isinstance(given, str):
                return Decimal(given) == stored.as_py()
            if isinstance(given, float | np.floating):
                return Decimal(repr(float(given))) == stored.as_py()
            return (given if isinstance(given, Decimal) else number(given)) == stored.as_py()
        case Kind.TEXT | Kind.CHOICE:
            return text_of(given) == stored.as_py()
        case Kind.BYTES:
            raw = given.encode() if isinstance(given, str) else bytes(given)
            return not isinstance(given, int) and raw == stored.as_py()
        case Kind.BOOL:
            return isinstance(given, bool | np.bool_) and bool(given) is stored.as_py()
        case Kind.FLOATS:
            return len(given) == len(stored.as_py()) and all(map(same_float, given, stored.as_py()))
        case Kind.TAGS:
            return [(text_of(k), text_of(v)) for k, v in given.items()] == stored.as_py()
    raise AssertionError(kind)


def attempt(convert: Callable[[Any], pa.Array], values: list[Any]) -> pa.Array | None:
    try:
        return convert(values)
    except BadColumn as error:
        if not error.reason or "c:" not in str(error):
            pytest.fail(f"neither reason nor column: {error}")
        return None
    except Exception:  # noqa: BLE001 - the builder takes what a value raises for a refusal of that row
        return None


@pytest.mark.parametrize("nullable", [False, True], ids=["required", "nullable"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_value_is_stored_exactly_or_refused(name: str, nullable: bool) -> None:
    """One value of any kind in a column of any kind."""
    target = column(COLUMNS[name], nullable=nullable)
    convert = converter(target)

    @settings(max_examples=150, deadline=None)
    @given(anything)
    @example(2**53 + 1)
    @example(np.int64(2**53 + 1))
    @example([np.int64(2**53 + 1)])
    @example(np.longdouble("0.1"))
    @example("1E-247")  # pyarrow made 0 of it
    @example("1e30")
    @example("1e2")
    @example(True)
    @example(None)
    @example(0)
    def law(value: Any) -> None:
        stored = attempt(convert, [value])
        if stored is not None:
            stored.validate(full=True)
            assert stored.type == target.type.arrow
            assert exact(target.type.kind, value, stored[0])
            assert value is not None or nullable

    law()


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_says_what_its_values_say_one_by_one(name: str) -> None:
    """Values together are taken if each alone is, and then are stored the same; `bad_values` finds those to blame."""
    target = column(COLUMNS[name], nullable=True)
    convert = converter(target)

    @settings(max_examples=80, deadline=None)
    @given(st.lists(anything, min_size=1, max_size=6))
    def law(values: list[Any]) -> None:
        alone = [attempt(convert, [value]) for value in values]
        together = attempt(convert, values)
        if together is None:
            assert None in alone, "a column of values that are good alone is good"
        else:
            together.validate(full=True)
            assert None not in alone
            if not any(isinstance(value, float) and math.isnan(value) for value in together.to_pylist()):
                assert together.equals(pa.concat_arrays(alone))
        try:
            blamed = [position for position, _ in bad_values(convert, values)]
        except Exception:  # noqa: BLE001 - a value that raises; the builder halves the slice
            return
        assert blamed == [position for position, one in enumerate(alone) if one is None]

    law()


GOOD: dict[str, list[Any]] = {
    "time": [EARLIEST_TIME_NS, 1_700_000_000_123_456_789, 2**63 - 1, np.int64(1_700_000_000_123_456_789)],
    "u32": [0, 2**32 - 1, np.uint8(7)],
    "u64": [2**64 - 1, np.uint64(2**64 - 1)],
    "i64": [-(2**63), 2**63 - 1],
    "float": [0.1, -0.0, 5e-324, 1.7976931348623157e308, 2**53, np.float32(0.1), np.int32(5)],
    "money": [
        "61800.2",
        "-0.000000000000000001",
        Decimal("9" * 20 + "." + "9" * 18),
        5,
        0.1,
        1e-7,
        "1e5",
        np.float64(0.1),
    ],
    "text": ["", "żółć 漢字 🚀", "a\x00b", Side.BUY],
    "name": ["BTCUSDT"],
    "payload": [bytes(range(256)), "ż", b"", bytearray(b"\xff"), memoryview(b"\x00")],
    "bool": [True, False, np.True_],
    "floats": [(), [1, 2.5], (0.1,), np.array([0.5])],
    "tags": [{}, {"a": "1", "ż": ""}],
    "choice": ["buy", Side.BUY],
}
BAD: dict[str, list[Any]] = {
    "time": [
        0,
        1_700_000_000,
        1_700_000_000_000,
        1_700_000_000_000_000,
        1.7e18,
        True,
        "1700000000000000000",
        2**63,
        None,
    ],
    "u32": [-1, 2**32, 1.0, True, "5", None, np.float64(1)],
    "u64": [-1, 2**64],
    "i64": [2**63, Decimal(5)],
    "float": [
        math.nan,
        math.inf,
        "1.5",
        True,
        2**53 + 1,
        np.int64(2**53 + 1),
        Decimal("1.5"),
        None,
        np.longdouble("0.1"),
    ],
    "money": [
        "",
        " 1",
        "1_0",
        "NaN",
        math.nan,
        Decimal("NaN"),
        Decimal("Infinity"),
        "0.0000000000000000001",
        "1e20",
        True,
        None,
        b"1",
        1e300,
    ],
    "text": ["\ud800", b"x", 5, None],
    "name": [None, 5],
    "payload": ["\ud800", 5, None, [1]],
    "bool": [0, 1, "true", None],
    "floats": [None, "1.5", [math.nan], [None], ["1"], [True], 5, {1.0}, [np.int64(2**53 + 1)]],
    "tags": [{"a": 1}, {1: "a"}, {"a": None}, [("a", "b")], None, {"\ud800": "x"}],
    "choice": ["BUY", "", None, 5, b"buy"],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_column_takes_and_refuses(name: str) -> None:
    """The values that the documents name, one by one."""
    convert = converter(column(COLUMNS[name]))
    for value in GOOD.get(name, []):
        assert exact(column(COLUMNS[name]).type.kind, value, convert([value])[0]), value
    for value in BAD.get(name, []):
        with pytest.raises(BadColumn):
            convert([value])
        good = GOOD[name][0]
        assert [position for position, _ in bad_values(convert, [good, value, good])] == [1], value


def test_a_time_in_the_wrong_unit_is_named() -> None:
    """The dead letter says what the number probably was."""
    convert = converter(column(columns.TimeNs))
    for value, unit in (
        (1_700_000_000, "seconds"),
        (1_700_000_000_000, "milliseconds"),
        (10**15, "microseconds"),
    ):
        with pytest.raises(BadColumn, match=unit):
            convert([value])
