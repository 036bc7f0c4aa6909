"""What a run came to, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from recorder.balance import Balance


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. Bytes are of the files as they lie there; `waiting_for` says what holds it up, if anything."""

    phase: str
    """`checking`, `recording` or `flushing`."""
    file: str
    done_bytes: int
    total_bytes: int
    records: int
    rows: int
    elapsed_s: float
    waiting_for: str = ""

    @property
    def rows_per_s(self) -> float:
        """Rows handed over a second, so far."""
        return self.rows / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def remaining_s(self) -> float | None:
        """How long the rest takes at the speed so far; None before that can be told."""
        if not self.done_bytes or self.elapsed_s < 0.5:
            return None
        return self.elapsed_s * (self.total_bytes - self.done_bytes) / self.done_bytes


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What one file came to. `log` is the `_log` of its rows; `notice` says why nothing, or not all, was recorded."""

    name: str
    format: str | None
    log: int
    size_bytes: int
    records: int = 0
    rows: int = 0
    bad_records: int = 0
    notice: str = ""
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """The exact totals of a run.

    `rows` are rows per table that files made, `kinds` the same by kind of row; `inserted` and `already_there` are
    where they went. `dead_letters` counts rows that their table refused and records that made no row.
    `balance` is promise P4 per table, of this run.
    """

    files: tuple[FileResult, ...]
    records: int
    rows: Mapping[str, int]
    kinds: Mapping[str, int]
    filtered: Mapping[str, int]
    ignored: Mapping[str, int]
    too_old: Mapping[str, int]
    bad_records: Mapping[str, int]
    """Records that made no row, per reason."""
    clock_steps_back: int
    elapsed_s: float
    unresolved: Mapping[str, int] = field(default_factory=dict)
    """Rows of orders and fills without a strategy that led to no known order, per table."""
    balance: Mapping[str, Balance] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def dead_letters(self) -> int:
        """Rows that their tables refused, and records that made no row."""
        refused = sum(balance.dead_lettered for table, balance in self.balance.items() if table in self.rows)
        return refused + sum(self.bad_records.values())

    @property
    def inserted(self) -> dict[str, int]:
        """Rows that are new, per table."""
        return {table: self.balance[table].inserted for table in self.rows if table in self.balance}

    @property
    def already_there(self) -> dict[str, int]:
        """Rows that an earlier run recorded, per table."""
        return {table: self.balance[table].duplicates_skipped for table in self.rows if table in self.balance}

    @property
    def exact(self) -> bool:
        """Whether every row is accounted for."""
        return all(balance.exact for balance in self.balance.values())

    @property
    def missing(self) -> dict[str, int]:
        """Rows that were handed over and are not in the database, per table: none unless the run was cut off."""
        counts = {table: balance.pending + balance.shed for table, balance in self.balance.items()}
        return {table: rows for table, rows in counts.items() if rows}

    @property
    def rows_per_s(self) -> float:
        """Rows a second, from the first to the last one queryable."""
        return sum(self.rows.values()) / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def truncated(self) -> tuple[FileResult, ...]:
        """Files that end too early."""
        return tuple(file for file in self.files if file.truncated)

    @property
    def ok(self) -> bool:
        """Whether all of every file is recorded or accounted for by rule."""
        whole = not self.truncated and not self.too_old and not self.interrupted
        return whole and self.exact and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "files": [asdict(file) for file in self.files],
            "records": self.records,
            "rows": dict(self.rows),
            "kinds": dict(self.kinds),
            "inserted": self.inserted,
            "already_there": self.already_there,
            "filtered": dict(self.filtered),
            "ignored": dict(self.ignored),
            "unresolved": dict(self.unresolved),
            "too_old": dict(self.too_old),
            "bad_records": dict(self.bad_records),
            "dead_letters": self.dead_letters,
            "missing": self.missing,
            "clock_steps_back": self.clock_steps_back,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "balance": {table: balance.as_dict() for table, balance in self.balance.items()},
            "exact": self.exact,
            "interrupted": self.interrupted,
            "ok": self.ok,
        }
