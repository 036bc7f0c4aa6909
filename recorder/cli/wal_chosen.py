"""Which rows of a log an operator means: by place, by time, by segment, or all that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import click
import numpy as np

from recorder.cli.errors import Failure
from recorder.cli.wal_filter import Wanted
from recorder.cli.wal_logs import Log
from wal import names
from wal.format import Kind
from wal.places import PlaceSet, Range
from wal.reader import LogReader
from wal.replay_plan import Survey, survey
from wal.settled import Checkpoint


@dataclass(frozen=True)
class Choice:
    """What the options say. None of them: everything that the log has."""

    wanted: Wanted
    segments: Collection[int] = ()

    @property
    def by_time(self) -> bool:
        """Whether rows have to be looked at."""
        return self.wanted.since_ns is not None or self.wanted.until_ns is not None

    @property
    def by_place(self) -> bool:
        """Whether it names rows whether or not they are there."""
        wanted = self.wanted
        named = wanted.epoch is not None or wanted.first > 0 or wanted.stop is not None
        return named and not self.by_time and not self.segments


def chosen(log: Log, choice: Choice, checkpoint: Checkpoint) -> tuple[Survey, list[Range]]:
    """The log as it is, and the rows that are meant. Those that it lacks are among them where their places were named.

    Raises:
        Failure: an epoch or a segment is none of this log, or rows have no time.
        UsageError: sequences of several epochs are meant.
        OSError: of this process and not of the log, such as too many open files.
    """
    found = survey(LogReader(log.folders))
    if choice.by_place:
        return found, [_named(log, choice.wanted, found, checkpoint.done())]
    there = {number for number, _ in names.segments(log.folders)}
    if gone := sorted(set(choice.segments) - there):
        raise Failure(
            f"{log.name}: there is no segment {', '.join(map(str, gone))}; it was purged, its rows being settled, or "
            f'never made; "recorder wal ls {log.name} --segments" lists those that there are'
        )
    return found, list(_rows(log, choice))


def _named(log: Log, wanted: Wanted, found: Survey, done: PlaceSet) -> Range:
    epochs = sorted({*found.present.epochs, *found.lost.epochs, *done.epochs})
    epoch = wanted.epoch
    if epoch is None:
        if len(epochs) != 1:
            raise click.UsageError(
                f"{log.name}: {len(epochs)} epochs have such sequences; name one with --epoch, as "
                f'"recorder wal ls {log.name} --segments" shows them'
            )
        epoch = epochs[0]
    if epoch not in epochs:
        raise Failure(
            f"{log.name}: there is nothing of epoch {epoch:016x}; its rows were purged long ago, or it is of another "
            f'log; "recorder wal ls {log.name} --segments" shows which there are'
        )
    known = [one.stop for places in (found.present, found.lost, done) for one in places.ranges(epoch)]
    stop = max(known) if wanted.stop is None else wanted.stop
    if stop <= wanted.first:
        raise Failure(
            f"{log.name}: epoch {epoch:016x} has no row from {wanted.first:,} up to {stop:,}; its rows end before "
            f"{max(known):,}"
        )
    return Range(epoch, wanted.first, stop)


def _rows(log: Log, choice: Choice) -> Iterator[Range]:
    for entry, contents in LogReader(log.folders).entries(check=False):
        part = choice.wanted.places(entry.range)
        if entry.kind is not Kind.ROWS or not part.rows:
            continue
        if choice.segments and entry.segment not in choice.segments:
            continue
        if not choice.by_time:
            yield part
            continue
        rows = contents.rows()
        if rows is None:
            continue  # which the survey has found, too
        keep = choice.wanted.by_time(rows.slice(part.first - entry.range.first, part.rows))
        yield from _runs(part, keep or [])


def _runs(part: Range, keep: list[bool]) -> Iterator[Range]:
    """The places of rows that are wanted."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(keep, dtype=np.int8), [0]))))
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        yield Range(part.epoch, part.first + first, part.first + stop)
