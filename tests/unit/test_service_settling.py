"""When handovers are settled: each once, in lines that do not wait for each other; bad rows wait for their letters."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Sequence

import pytest

from recorder.settling import Handover, Settling


class Line:
    """A pipeline's side of it: positions, and how far rows are durable."""

    def __init__(self) -> None:
        self.position = 0
        self.durable_upto = 0
        self.dead_rows = 0
        self.lost_rows = 0
        self.queue = types.SimpleNamespace(refused_rows=0, displaced_rows=0)
        self._progress = asyncio.Condition()

    async def durable(self, upto: int, *, hurry: bool = True) -> None:
        assert not hurry, "acknowledgements must not cut batches short"
        async with self._progress:
            await self._progress.wait_for(lambda: self.durable_upto >= upto)

    async def resolve(self, upto: int) -> None:
        """Rows up to here are done."""
        self.durable_upto = upto
        async with self._progress:
            self._progress.notify_all()
        for _ in range(5):
            await asyncio.sleep(0)


class Told:
    """Collects what is settled."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.unkept: list[str] = []

    def __call__(self, handovers: Sequence[Handover]) -> None:
        for handover in handovers:
            (self.unkept if handover.unkept else self.names).append(handover.table)


@pytest.fixture
async def lines() -> dict[str, Line]:
    """Three tables."""
    return {name: Line() for name in ("orders", "fills", "dead_letters")}


def handed(lines: dict[str, Line], table: str, rows: int = 10) -> Handover:
    """Rows put into a table's queue."""
    lines[table].position += rows
    unkept = lines["dead_letters"].queue.refused_rows
    return Handover(table, rows, lines[table].dead_rows, unkept)


async def test_each_table_has_a_line_of_its_own(lines: dict[str, Line]) -> None:
    """A table that stands still keeps its own waiting and no other's; a batch that ends in between settles nothing."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    for table in ("orders", "fills", "orders"):
        settling.track([handed(lines, table)], told)
    await lines["fills"].resolve(9)
    assert told.names == []
    await lines["fills"].resolve(10)
    assert told.names == ["fills"]
    await lines["orders"].resolve(15)
    assert told.names == ["fills", "orders"]
    await lines["orders"].resolve(20)
    assert told.names == ["fills", "orders", "orders"]
    assert not settling._tasks, "a line that is empty needs nobody to watch it"
    await settling.close()


async def test_rows_that_went_bad_wait_for_their_letters(lines: dict[str, Line]) -> None:
    """A letter that is still in a queue would be lost by a kill, and the message must come again then."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    settling.track([handed(lines, "orders")], told)
    lines["orders"].dead_rows += 1
    lines["dead_letters"].position += 1
    await lines["orders"].resolve(10)
    assert told.names == []
    await lines["dead_letters"].resolve(1)
    assert told.names == ["dead_letters"]
    await settling.close()


async def test_bad_dead_letters_do_not_wait_for_themselves(lines: dict[str, Line]) -> None:
    """A letter that cannot be kept is told in the log, and is settled."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    settling.track([handed(lines, "dead_letters", 1)], told)
    lines["dead_letters"].dead_rows += 1
    await lines["dead_letters"].resolve(1)
    assert told.names == ["dead_letters"]
    await settling.close()


async def test_rows_whose_letters_found_no_room_are_unkept(lines: dict[str, Line]) -> None:
    """Nothing says what they were: their messages must be taken again."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    settling.track([handed(lines, "orders")], told)
    lines["orders"].dead_rows += 1
    lines["dead_letters"].queue.refused_rows += 1
    await lines["orders"].resolve(10)
    await lines["dead_letters"].resolve(0)
    settling.track([handed(lines, "orders")], told)
    await lines["orders"].resolve(20)
    assert (told.unkept, told.names) == (["dead_letters"], ["orders"]), "only those that came later are kept"
    assert not settling._tasks
    await settling.close()


async def test_displaced_letters_are_unkept(lines: dict[str, Line]) -> None:
    """They are all that is left of their messages."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    handover = handed(lines, "dead_letters", 1)
    settling.track([handover], told)
    settling.displaced(handover, told)
    await asyncio.sleep(0)
    await lines["dead_letters"].resolve(1)
    assert (told.unkept, told.names) == (["dead_letters"], [])
    await settling.close()


@pytest.mark.parametrize("before", [True, False])
async def test_displaced_rows_are_settled_at_once_and_once(lines: dict[str, Line], before: bool) -> None:
    """Whether they are displaced before or after they are tracked."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    handover = handed(lines, "orders")
    if before:
        settling.displaced(handover, told)
    settling.track([handover], told)
    if not before:
        settling.displaced(handover, told)
    await asyncio.sleep(0)
    assert told.names == ["orders"]
    await lines["orders"].resolve(10)
    assert told.names == ["orders"]
    await settling.close()


async def test_what_waits_at_the_end_is_told_apart_by_whether_it_comes_again(lines: dict[str, Line]) -> None:
    """Rows of messages that their bus delivers again are not lost; settled ones are neither."""
    settling = Settling(lines)  # type: ignore[arg-type]
    given = [handed(lines, "orders", rows) for rows in (1, 10, 100)]
    given[0].settled = given[1].comes_again = True
    settling.track(given, Told())
    assert settling.waiting_rows("orders", comes_again=True) == 10
    assert settling.waiting_rows("orders", comes_again=False) == 100
    assert settling.waiting_rows("fills", comes_again=True) == 0
    await settling.close()


async def test_closing_tells_nobody(lines: dict[str, Line]) -> None:
    """What is not settled then comes again."""
    told, settling = Told(), Settling(lines)  # type: ignore[arg-type]
    settling.track([handed(lines, "orders")], told)
    await asyncio.sleep(0)
    await settling.close()
    await lines["orders"].resolve(10)
    assert told.names == []
