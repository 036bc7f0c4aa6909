"""The hot path while the engine's inserts hang: calls stay as cheap, memory within its bounds, and afterwards every
row is accounted for, in the database once or in a gap row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import hang, rig
from benchmarks.gcstate import gc_state
from benchmarks.hotpath_sides import NS, P999_TARGET_S, Quantiles
from benchmarks.machine import describe_machine
from benchmarks.report import Report, Section, Verdict, count, mebibytes, seconds, within
from benchmarks.stats import QUANTILES, quantiles
from benchmarks.steps import Producer, timer_cost_ns, without_timer
from recorder import Recorder
from recorder.balance import Balance
from recorder.own_rows import GAPS
from recorder.settings import Settings

KEPT = 1.25
"""A hang may cost the calls this much at p99.9, which is what two runs differ by anyway."""


@dataclass(frozen=True)
class HangResult:
    """What the calls took before, during and after the hang, and where every row is."""

    calls: Mapping[str, Quantiles]
    timer_ns: float
    hang_s: float
    drain_s: float
    offered: Mapping[str, int]
    balance: Mapping[str, Balance]
    stored: Mapping[str, rig.Stored]
    gap_rows: Mapping[str, int]
    rss_before_bytes: int
    peaks: rig.Peaks
    queue_bound_bytes: int

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        found = []
        for name, balance in self.balance.items():
            if not balance.exact or balance.pending:
                found.append(f"{name}: balance {balance.as_dict()}")
            if balance.received < self.offered.get(name, 0):
                found.append(f"{name}: offered {self.offered[name]}, received {balance.received}")
            there = self.stored.get(name, rig.Stored(0, 0))
            if not balance.inserted == there.rows == there.identities:
                found.append(
                    f"{name}: inserted {balance.inserted}, the database has {there.rows}, {there.identities} different"
                )
            if balance.shed != self.gap_rows.get(name, 0) and name != GAPS:
                found.append(f"{name}: shed {balance.shed}, told in gap rows {self.gap_rows.get(name, 0)}")
        return found

    def stored_rows(self, table: str) -> int:
        """Rows that the database has of a table."""
        return self.stored[table].rows if table in self.stored else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "timer_ns": self.timer_ns,
            "hang_s": self.hang_s,
            "drain_s": self.drain_s,
            "calls_s": {
                name: {q: value * NS for q, value in found.items()} for name, found in self.calls.items()
            },
            "rss_before_bytes": self.rss_before_bytes,
            "rss_peak_bytes": self.peaks.rss_bytes,
            "queue_bound_bytes": self.queue_bound_bytes,
            "queue_peak_rows": self.peaks.queue_rows,
            "problems": self.problems(),
            "tables": {
                name: {
                    **balance.as_dict(),
                    "exact": balance.exact,
                    "in_gap_rows": self.gap_rows.get(name, 0),
                    "stored_rows": self.stored_rows(name),
                }
                for name, balance in self.balance.items()
            },
        }


def run_hang(
    settings: Settings, producer: Producer, *, before_s: float, hang_s: float, after_s: float
) -> HangResult:
    """Record; for `hang_s` the engine's inserts hang; then drain, close, and count."""
    rows, timer_ns = producer.rows, timer_cost_ns()
    tables = sorted({table for table, _ in rows})
    with Recorder(settings) as recorder:
        recorder.flush(60)
        with rig.Probe(recorder) as probe:
            # A row in every table, so that each has a part for the brake to count.
            for table in tables:
                recorder.record(table, next(row for name, row in rows if name == table))
            recorder.flush(60)
            moments: dict[str, int] = {}
            rss: dict[str, int] = {}

            def engine() -> None:
                time.sleep(before_s)
                rss["before"] = (
                    rig.rss_bytes()
                )  # with the engine and its caches there, which are not what is asked
                hang.hang(recorder, tables, hang_s)
                moments["hung"] = time.perf_counter_ns()
                time.sleep(hang_s)
                hang.release(recorder, tables)
                moments["released"] = time.perf_counter_ns()

            total_s = before_s + hang_s + after_s
            steps = int(producer.rate * total_s)
            trouble = threading.Thread(target=engine, name="bench-trouble")
            with gc_state(producer.collector):
                trouble.start()
                began = time.perf_counter_ns()
                taken = producer.take(recorder.record, steps=steps)
                trouble.join()
            drain_began = time.perf_counter()
            recorder.flush(hang_s * 2 + 120)
            drain_s = time.perf_counter() - drain_began
            peaks = probe.take()
        bound = sum(
            own.queue_bytes + 3 * own.batch_bytes
            for own in (
                settings.for_table(table) for name, table in recorder.tables.items() if name in tables
            )
        )
    balance = recorder.balance()
    gaps = rig.ask(settings, {"": f"SELECT table_name, sum(rows) FROM {GAPS} GROUP BY table_name"})[""]
    costs = without_timer(taken.costs, timer_ns)
    at = [min(steps, int((moments[name] - began) / 1e9 * producer.rate)) for name in ("hung", "released")]
    offered: dict[str, int] = {}
    for step in range(steps):
        name = rows[step % len(rows)][0]
        offered[name] = offered.get(name, 0) + 1
    parts = {"before": costs[: at[0]], "hanging": costs[at[0] : at[1]], "after": costs[at[1] :]}
    return HangResult(
        calls={name: quantiles(part) for name, part in parts.items() if len(part)},
        timer_ns=timer_ns,
        hang_s=hang_s,
        drain_s=drain_s,
        offered=offered,
        balance=balance,
        stored=rig.stored(settings, list(balance)),
        gap_rows={name: int(rows_) for name, rows_ in gaps},
        rss_before_bytes=rss["before"],
        peaks=peaks,
        queue_bound_bytes=bound,
    )


def hang_report(result: HangResult, settings: Settings, what: str, conditions: str) -> Report:
    """The run as people and programs read it."""
    return Report(
        "hotpath --engine-hangs",
        what,
        conditions,
        describe_machine(rig.engine_version(settings)),
        [
            Section(
                "A call of record()",
                ("", "p50", "p99", "p99.9", "max"),
                [
                    [name, *(seconds(found[quantile] * NS) for quantile in QUANTILES)]
                    for name, found in result.calls.items()
                ],
                f"The clock's own {result.timer_ns:.0f} ns are taken off.",
            ),
            _table_section(result),
        ],
        _verdicts(result),
        result.as_dict(),
    )


def _table_section(result: HangResult) -> Section:
    rows = [
        [
            name,
            count(balance.received),
            count(balance.inserted),
            count(balance.shed),
            count(result.gap_rows.get(name, 0)),
            count(result.stored_rows(name)),
            count(result.peaks.queue_rows.get(name, 0)),
            "exact" if balance.exact else "WRONG",
        ]
        for name, balance in sorted(result.balance.items(), key=lambda item: -item[1].received)
        if balance.received
    ]
    return Section(
        "Tables",
        ("table", "received", "inserted", "shed", "in gaps", "stored", "queue", "balance"),
        rows,
        f"Drained in {seconds(result.drain_s)} after the last row. RSS was "
        f"{mebibytes(result.rss_before_bytes)} before the hang, "
        f"{mebibytes(result.peaks.rss_bytes)} at most; the bounds of queues and batches allow "
        f"{mebibytes(result.queue_bound_bytes)} more.",
    )


def _verdicts(result: HangResult) -> list[Verdict]:
    before_s, hanging_s = (
        result.calls[part]["p999"] * NS if part in result.calls else 0.0 for part in ("before", "hanging")
    )
    grown, bound = max(0, result.peaks.rss_bytes - result.rss_before_bytes), result.queue_bound_bytes
    usage, problems = result.peaks.queue_usage, result.problems()
    return [
        within("record() p99.9 while it hangs", hanging_s, max(P999_TARGET_S, KEPT * before_s)),
        Verdict("memory grew by", mebibytes(grown), f"≤ {mebibytes(bound)}", grown <= bound),
        Verdict("fullest queue", f"{usage:.1%}", "≤ 100 %", usage <= 1.001),
        Verdict("counts agree, each row once", "; ".join(problems) or "all", "all", not problems),
    ]
