"""A block gets in once, whatever the target answers: a model of a server that loses answers, and rows under tokens."""

from __future__ import annotations

import asyncio
import collections

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.backoff import Backoff
from recorder.batch import Batch
from recorder.copying import CopyStopped, Writer, write
from recorder.sink.errors import DataError, Retryable

SCHEMA = pa.schema([("ts_local", pa.timestamp("ns", "UTC")), ("_log", pa.uint64()), ("_seq", pa.uint64())])
HAPPENS = st.lists(st.sampled_from(["yes", "lost", "half", "spent", "nothing", "deaf"]), max_size=8)


class Server:
    """A sink. What happens to a call, in order: an insert gets in and says so (`yes`, also when all is used up), or its
    answer is lost, or half of it gets in (`half`), or its token without its rows (`spent`), or nothing. A look-up is
    deaf, or answers."""

    def __init__(self, there: list[int], happens: list[str]):
        self.rows = collections.Counter(there)
        self.tokens: set[str] = set()
        self._happens = iter(happens)

    async def look_up(self, batch: Batch) -> set[tuple[int, int]]:
        assert batch.from_source
        if next(self._happens, "yes") == "deaf":
            raise Retryable("no answer")
        return {(log, seq) for log, seq in batch.identities() if self.rows[seq]}

    async def insert(self, batch: Batch, *, timeout_s: float) -> None:
        what = next(self._happens, "yes")
        seqs = batch.data["_seq"].to_pylist()
        if batch.token not in self.tokens and what in ("yes", "lost", "half"):
            self.rows.update(seqs[::2] if what == "half" else seqs)
        if what in ("yes", "lost", "spent", "half"):
            self.tokens.add(batch.token)
        if what != "yes":
            raise Retryable(what)


def rows(seqs: list[int]) -> pa.RecordBatch:
    times = pa.array([1_000 + seq for seq in seqs], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    ones = pa.array([1] * len(seqs), pa.uint64())
    return pa.RecordBatch.from_arrays([times, ones, pa.array(seqs, pa.uint64())], schema=SCHEMA)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BACKOFF", Backoff(0.0, 0.0))


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.sets(st.integers(0, 9)).map(sorted), HAPPENS)
def test_each_row_is_there_once_whatever_the_answers(
    seqs: list[int], there: list[int], happens: list[str]
) -> None:
    """After `put` every row of the block is there once, as often as it was named; it says how many lacked."""
    server = Server(there, happens)
    writer = Writer(server, insert_timeout_s=1.0, patience_s=60.0)  # type: ignore[arg-type]
    lacked = asyncio.run(writer.put("fills", rows(seqs)))
    assert server.rows == collections.Counter({*seqs, *there})
    assert lacked == writer.inserted == len({*seqs} - {*there})


def test_what_the_target_refuses_ends_the_copy() -> None:
    """An error of the data, and silence for too long, are told with the table and how to go on."""
    server = Server([], [])

    async def refuse(batch: Batch, *, timeout_s: float) -> None:
        raise DataError("no such value")

    server.insert = refuse  # type: ignore[method-assign]
    writer = Writer(server, insert_timeout_s=1.0, patience_s=60.0)  # type: ignore[arg-type]
    with pytest.raises(
        CopyStopped, match=r"fills: the target refuses rows: no such value.*run the same command"
    ):
        asyncio.run(writer.put("fills", rows([1])))
    deaf = Writer(Server([], ["deaf"]), insert_timeout_s=1.0, patience_s=0.0)  # type: ignore[arg-type]
    with pytest.raises(CopyStopped, match="took no rows for 0 s: no answer"):
        asyncio.run(deaf.put("fills", rows([1])))


def test_nothing_is_sent_where_the_check_forbids_it() -> None:
    """A check that says "not now" is asked again like a target that does not answer; one that says "stop" ends the
    copy. Neither time is a row sent."""
    answers: list[Exception] = [Retryable("not now"), CopyStopped("another took over")]
    server = Server([], [])

    def check() -> None:
        raise answers.pop(0)

    writer = Writer(server, insert_timeout_s=1.0, patience_s=60.0, check=check)  # type: ignore[arg-type]
    with pytest.raises(CopyStopped, match="another took over"):
        asyncio.run(writer.put("fills", rows([1, 2])))
    assert not answers
    assert not server.rows
    assert writer.inserted == 0
