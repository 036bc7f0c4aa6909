"""One partition's copy: compare, copy what lacks, and compare again until nothing lacks.

Every comparison asks both sides for the digests of all slices, and looks row by row only where they differ. Rows may
come on either side meanwhile: what the source got since is copied in the next round, what only the target has is told
and stays. Rows that lack after they were copied, and lack again, do not stay there: that is an error, as are rows of
one identity with two contents.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from recorder.copying.blocks import blocks_of
from recorder.copying.compare import Compared, Identity, compare_run
from recorder.copying.digest import Run, differing_runs, digests, slices_of
from recorder.copying.ends import Side, full_name
from recorder.copying.partitions import Part, Span
from recorder.copying.tables import CopyTable
from recorder.copying.verified import KEPT, Prints, Verified, prints_of
from recorder.copying.write import Writer

ROUNDS = 6
"""Comparisons at most, so that a partition which grows without end is left: for the next run."""


class State(enum.StrEnum):
    """What became of a partition."""

    COPIED = "copied"
    THERE = "there"
    FAULTY = "faulty"


@dataclass(frozen=True)
class Outcome:
    """What became of a partition. All are rows.

    `rows` the source had at the last comparison, `copied` got in now, `late` came to the source since, `extra` only the
    target has; `differing`, `doubled` and `source_doubled` as `Compared`. `problem` says why it is faulty.
    """

    table: str
    partition: str
    state: State
    rows: int = 0
    copied: int = 0
    late: int = 0
    extra: int = 0
    differing: int = 0
    doubled: int = 0
    source_doubled: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Found:
    """A comparison: how the rows stand, the runs in which some lack, and how many rows the source has."""

    compared: Compared
    runs: tuple[Run, ...]
    rows: int
    prints: Prints


class PartitionCopy:
    """The copy of one partition. `advance` is told of rows that are dealt with."""

    def __init__(
        self,
        source: Side,
        target: Side,
        writer: Writer,
        table: CopyTable,
        part: Part,
        span: Span,
        advance: Callable[[int], None] = lambda _: None,
    ):
        self._source, self._target, self._writer = source, target, writer
        self._table, self._part, self._span = table, part, span
        self._advance = advance
        self._copied = 0

    async def run(self, verified: Verified) -> Outcome:
        """Copy it.

        Raises:
            CopyStopped: the target takes no rows.
        """
        known = verified.recall(self._part, self._span, prints_of(self._source, self._target, self._part))
        if known is not None:
            self._advance(self._part.rows)
            return Outcome(self._part.table, self._part.id, State.THERE, **known)
        before: frozenset[Identity] = frozenset()
        for number in range(ROUNDS):
            found = self._compare(first=number == 0)
            lacking = found.compared.missing
            if not lacking:
                outcome = self._outcome(found, _faults(found.compared))
                if outcome.state is not State.FAULTY:
                    verified.keep(self._part, self._span, found.prints, _kept(outcome))
                return outcome
            if not number and (expired := self._expired(found.runs)):
                return self._outcome(found, _would_expire(self._table, expired))
            if gone := before & found.compared.missing_ids:
                return self._outcome(found, _gone(self._table, lacking, len(gone)))
            before = found.compared.missing_ids
            if number < ROUNDS - 1:
                await self._copy(found.runs)
        return self._outcome(found, _faults(found.compared), late=lacking)

    def _compare(self, *, first: bool) -> _Found:
        """Compare both sides. At `first` rows of a run of which the target has none lack without being looked at; those
        of a run of which the source has none are never looked at, however many they are."""
        if self._table.replicated:
            name = full_name(self._target, self._table.name)
            self._target.executor.command(f"SYSTEM SYNC REPLICA {name} LIGHTWEIGHT")
        # Before the rows are read: what comes later makes other prints.
        prints = prints_of(self._source, self._target, self._part)
        slices = slices_of(self._part)
        where = self._part.where(self._span)
        of_source, of_target = (
            digests(side, self._table, where, slices) for side in (self._source, self._target)
        )
        total, lacking = Compared(), []
        rows = sum(digest.rows for digest in of_source.values())
        runs = differing_runs(of_source, of_target, slices)
        if first:
            self._advance(rows - sum(run.source_rows for run in runs))
        for run in runs:
            if first and not run.target_rows:
                compared = Compared(missing=run.source_rows)
            elif not run.source_rows:
                compared = Compared(extra=run.target_rows)
            else:
                most = max(run.source_rows, run.target_rows)
                compared = compare_run(self._source, self._target, self._table, self._where(run), most)
            total += compared
            if compared.missing:
                lacking.append(run)
            elif first:
                self._advance(run.source_rows)
        return _Found(total, tuple(lacking), rows, prints)

    async def _copy(self, runs: Iterable[Run]) -> None:
        """Copy runs; the next block is read while one is written."""
        with contextlib.closing(self._blocks(runs)) as blocks:
            block = await asyncio.to_thread(_next, blocks)
            while block is not None:
                ahead = asyncio.ensure_future(asyncio.to_thread(_next, blocks))
                try:
                    self._copied += await self._writer.put(self._table.name, block)
                    self._advance(block.num_rows)
                finally:
                    await asyncio.wait({ahead})  # nobody may close what a thread reads
                block = ahead.result()

    def _blocks(self, runs: Iterable[Run]) -> Generator[pa.RecordBatch]:
        for run in runs:
            yield from blocks_of(self._source, self._table, self._where(run))

    def _where(self, run: Run) -> str:
        return self._part.where(self._span.within(run.span))

    def _expired(self, runs: Iterable[Run]) -> int:
        """How many rows of runs the target would delete at once."""
        if not self._table.ttl or any(mark in self._table.ttl for mark in (",", " WHERE ", " TO ")):
            return 0
        ttl = self._table.ttl.removesuffix(" DELETE")
        name = full_name(self._source, self._table.name)
        return sum(
            int(
                self._source.rows(
                    f"SELECT count() FROM {name} WHERE {self._where(run)} AND ({ttl}) <= now('UTC')"
                )[0][0]
            )
            for run in runs
        )

    def _outcome(self, found: _Found, problem: str, *, late: int = 0) -> Outcome:
        state = State.FAULTY if problem else State.COPIED if self._copied else State.THERE
        outcome = Outcome(self._part.table, self._part.id, state, copied=self._copied, problem=problem)
        compared = found.compared
        return dataclasses.replace(
            outcome,
            rows=found.rows,
            late=late,
            extra=compared.extra,
            differing=compared.differing,
            doubled=compared.doubled,
            source_doubled=compared.source_doubled,
        )


def _next(blocks: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next(blocks, None)


def _kept(outcome: Outcome) -> dict[str, int]:
    return {name: getattr(outcome, name) for name in KEPT}


def _faults(compared: Compared) -> str:
    """What is wrong with rows that are on both sides."""
    faults = []
    if compared.differing:
        names = ", ".join(f"_log {log} _seq {seq}" for log, seq in compared.differing_ids)
        faults.append(
            f"{compared.differing} rows have another content in the target than in the source, such as {names}; "
            "nothing was changed: see which is right, delete the other, and run again"
        )
    if compared.doubled:
        faults.append(
            f"the target has {compared.doubled} identities more than once: something else inserted them at the same "
            "time; delete that partition there, and run again while nothing else writes these rows"
        )
    return "; ".join(faults)


def _would_expire(table: CopyTable, rows: int) -> str:
    return (
        f"{rows} rows are older than the target keeps them ({table.ttl}), so it would delete them at once; nothing of "
        "the partition was copied. Make the target keep them (recorder migrate up --no-ttl), or leave them out: --since"
    )


def _gone(table: CopyTable, rows: int, again: int) -> str:
    ttl = f", and its TTL is {table.ttl}" if table.ttl else ""
    return (
        f"{rows} rows lack in the target, {again} of them after they were inserted{ttl}; see what deletes there, "
        "and run again"
    )
