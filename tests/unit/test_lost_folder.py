"""What a start makes of files that are not whole: a folder of a log that is not there, and is at the next start, whose
rows were told as lost, and are sent; a file that ends broken, all else in it being settled.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from collections.abc import Sequence

from recorder.build import BatchBuilder
from recorder.log_losses import Loss
from recorder.logs import Logs
from recorder.sink.base import ServerInfo
from recorder.table_log import TableLog
from schemas.core.tables import PACK
from wal.frames import Frame
from wal.options import LogOptions
from wal.places import Range
from wal.segment import Segment

TABLE = PACK.table("orders")
SMALL = LogOptions(segment_bytes_min=65_536, segment_bytes_max=65_536)


class Account:
    def __init__(self) -> None:
        self.rows = self.lost = 0

    def replayed(self, rows: int) -> None:
        self.rows += rows

    def damaged(self, losses: Sequence[Loss], *, counted: bool) -> None:
        self.lost += sum(one.rows for one in losses)


async def nothing() -> None:
    return


def opened(folder: pathlib.Path) -> tuple[Logs, TableLog]:
    logs = Logs(folder / "first", SMALL, group_ms=0, grace_s=0, second=folder / "second")
    log = logs.open(TABLE, letters_durable=nothing, gaps_durable=nothing, batch_rows=1_000)
    assert log is not None
    return logs, log


async def earlier_rows(folder: pathlib.Path) -> Account:
    """What a start makes of what the log has."""
    logs, log = opened(folder)
    log.done.server_is(ServerInfo("26", "a", 1_000), time.time_ns())
    await logs.tidy()
    account = Account()
    await log.reading.take_up(account)
    await asyncio.gather(*log._confirming)
    await logs.tidy()
    await log.close()
    await logs.close()
    return account


async def test_rows_of_a_folder_that_comes_back_are_sent_after_all(tmp_path: pathlib.Path) -> None:
    """They were durable: that one start did not see their files must not settle them, and have the files removed."""
    logs, log = opened(tmp_path)
    builder = BatchBuilder(TABLE, epoch=log.writer.epoch, run_id="r", on_bad=print, on_slice=log.append)
    second, rows = tmp_path / "second" / "orders", 0
    for spare in (False, True, False):
        log.writer.spare_first(spare)
        before = log.writer.stats().segments
        while log.writer.stats().segments < before + 3:
            row = {"symbol": "A", "status": "Open", "correlation_id": os.urandom(2_000).hex()}
            rows += sum(builder.add([(row, time.monotonic_ns(), None, 0)] * 10))
            log.writer.wait(log.mark, 30)
    await log.close()
    await logs.close()
    assert any(second.glob("*.wal"))

    second.parent.rename(tmp_path / "away")
    gone = await earlier_rows(tmp_path)
    assert gone.lost > 0
    assert gone.rows == rows - gone.lost
    (second / "LOCK").unlink(missing_ok=True)
    second.rmdir()
    second.parent.rmdir()
    (tmp_path / "away").rename(second.parent)
    back = await earlier_rows(tmp_path)
    assert (back.rows, back.lost) == (rows, 0)
    assert any(second.glob("*.wal"))


async def test_rows_at_the_broken_end_of_a_file_are_told_though_all_else_in_it_is_settled(
    tmp_path: pathlib.Path,
) -> None:
    """The file seems to hold settled rows alone: it must not be removed before its end was looked at, as nothing else
    says that there were more."""
    logs, log = opened(tmp_path)
    builder = BatchBuilder(TABLE, epoch=log.writer.epoch, run_id="r", on_bad=print, on_slice=log.append)
    row = {"symbol": "A", "status": "Open", "correlation_id": os.urandom(2_000).hex()}
    while log.writer.stats().segments < 2:
        for _ in builder.add([(row, time.monotonic_ns(), None, 0)] * 10):
            log.writer.wait(log.mark, 30)
    path = min((tmp_path / "first" / "orders").glob("*.wal"))
    with Segment.open(path) as segment:
        frame = [one for one in segment.scan() if isinstance(one, Frame) and one.header.rows][-1]
    epoch, first, after = log.writer.epoch, frame.header.first, frame.header.first + frame.header.rows
    log.done.resolve([Range(epoch, 0, first), Range(epoch, after, log.writer.stats().rows_appended)])
    await log.close()
    await logs.close()
    data = bytearray(path.read_bytes())
    data[frame.offset + 9] ^= 1
    path.write_bytes(data)
    assert (await earlier_rows(tmp_path)).lost == frame.header.rows
    assert not path.exists(), "told, and done with"
    assert (await earlier_rows(tmp_path)).lost == 0
