"""A row that was refused for one field comes back without it as if it had never had it: every value, exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.bad_rows import row_bytes
from recorder.build import BatchBuilder
from recorder.dead_letters.letter import Letter
from recorder.dead_letters.payload import row_of
from recorder.entries import Block
from schemas.core.tables import PACK

TABLES = {table.name: table for table in PACK.tables}
TIME_NS = 1_760_000_000_000_000_000

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
times = st.integers(TIME_NS, TIME_NS + 10**15)
amounts = st.one_of(
    st.decimals(-(10**19), 10**19, places=18, allow_nan=False),
    st.decimals(-(10**19), 10**19, places=18, allow_nan=False).map(str),
    st.integers(-(10**19), 10**19),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6)),
)
rows = st.one_of(
    st.tuples(
        st.just("orders"),
        st.fixed_dictionaries(
            {"client_order_id": texts, "symbol": texts, "status": st.just("Open"), "ts_local": times},
            optional={
                "qty": amounts,
                "limit_px": amounts,
                "ts_send": times,
                "notes": texts,
                "strategy": texts,
            },
        ),
    ),
    st.tuples(
        st.just("system_events"),
        st.fixed_dictionaries(
            {"kind": texts, "ts_local": times, "payload": st.one_of(st.binary(max_size=30), texts)}
        ),
    ),
    st.tuples(
        st.just("metrics_timeseries"),
        st.fixed_dictionaries(
            {
                "name": texts,
                "ts_local": times,
                "value": st.floats(allow_nan=False, allow_infinity=False),
                "labels": st.dictionaries(texts, texts, max_size=3),
            }
        ),
    ),
)


def _built(table: str, row: Any, *, ignore: bool) -> Any:
    refused: list[Any] = []
    builder = BatchBuilder(
        TABLES[table], epoch=0, run_id="run-1", ignore_unknown=ignore, on_bad=refused.append
    )
    list(builder.add([Block([row], 1, 7, [12], 0)]))
    assert not refused, refused
    return builder.seal()[0].data


@given(rows)
@settings(deadline=None)  # the first example loads pyarrow's casts
def test_every_value_comes_back(drawn: tuple[str, dict[str, Any]]) -> None:
    """Texts, bytes, exact amounts however they were given, floats, times, tags."""
    table, row = drawn
    payload, payload_format = row_bytes({**row, "odd": Decimal(1)})
    letter = Letter(
        id=(5, 0), ts_local=TIME_NS, run_id="run-1", correlation_id=None, recorder_run_id="", table=table,
        reason="unknown_field", detail="", origin="", source=(7, 12), payload_format=payload_format,
        payload_bytes=len(payload), payload=payload,
    )  # fmt: skip
    again = _built(table, row_of(letter, TABLES[table]), ignore=True)
    assert again.equals(_built(table, dict(row), ignore=False))
