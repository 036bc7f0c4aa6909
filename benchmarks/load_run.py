"""All tables at a steady rate, then a burst: the run, what it used, and whether its counts agree."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import rig
from benchmarks.gcstate import GcState, gc_state
from benchmarks.rows import ALL_TABLES, make_reel
from recorder import Recorder
from recorder.balance import Balance
from recorder.latency import LatencyHistogram
from recorder.own_rows import OWN_TABLES
from recorder.settings import Settings
from recorder.simulate.pace import Progress, Schedule, drive

DRAIN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class PhaseResult:
    """One phase: what was sent, what came of it, what it cost."""

    name: str
    elapsed_s: float
    offered: int
    shed: int
    lag: LatencyHistogram
    lag_by_table: dict[str, LatencyHistogram]
    inserts: int
    inserted_rows: int
    cpu_s: dict[str, float]
    peaks: rig.Peaks
    lateness_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "elapsed_s": self.elapsed_s,
            "offered_rows": self.offered,
            "accepted_rows": self.offered - self.shed,
            "shed_rows": self.shed,
            "lag": self.lag.summary(),
            "inserts": self.inserts,
            "inserted_rows": self.inserted_rows,
            "cpu_s": self.cpu_s,
            "rss_peak_bytes": self.peaks.rss_bytes,
            "queue_peak_rows": self.peaks.queue_rows,
            "queue_peak_usage": self.peaks.queue_usage,
            "producer_lateness_max_s": self.lateness_s,
        }


@dataclass(frozen=True)
class LoadResult:
    """The whole run."""

    phases: Sequence[PhaseResult]
    drain_s: float
    offered: Counter[str]
    shed: Counter[str]
    balance: dict[str, Balance]
    stored: dict[str, int]
    doubled: dict[str, int]
    lag_by_table: dict[str, LatencyHistogram]
    rss_before_bytes: int

    def problems(self) -> list[str]:
        """Where counts do not agree; empty when all do."""
        found = []
        for name, balance in self.balance.items():
            if not balance.exact or balance.pending:
                found.append(f"{name}: balance {balance.as_dict()}")
            offered = self.offered[name]
            # The recorder writes rows of its own into some of its tables.
            if balance.received != offered and not (name in OWN_TABLES and balance.received > offered):
                found.append(f"{name}: offered {offered}, received {balance.received}")
            if self.stored.get(name, 0) != balance.inserted:
                found.append(
                    f"{name}: inserted {balance.inserted}, in the database {self.stored.get(name, 0)}"
                )
            if self.doubled.get(name, 0):
                found.append(f"{name}: {self.doubled[name]} rows are there twice")
        return found


class _Meter:
    """Takes what a phase used, at its end."""

    def __init__(self, recorder: Recorder, probe: rig.Probe):
        self._recorder, self._probe = recorder, probe
        rig.take(recorder)
        probe.take()
        self._before = (time.perf_counter(), rig.take(recorder), rig.cpu_by_role(), 0, 0, 0)

    def end(self, name: str, progress: Progress) -> PhaseResult:
        """The phase that ends now."""
        began_s, mark_before, cpu_before, rows_before, shed_before, steps_before = self._before
        now_s, mark, cpu = time.perf_counter(), rig.take(self._recorder), rig.cpu_by_role()
        self._probe.look()
        rows, shed, steps = progress.rows, progress.shed.total(), len(progress.lateness_ns)
        self._before = (now_s, mark, cpu, rows, shed, steps)
        return PhaseResult(
            name=name,
            elapsed_s=now_s - began_s,
            offered=rows - rows_before,
            shed=shed - shed_before,
            lag=merged(mark.lag),
            lag_by_table=mark.lag,
            inserts=mark.inserts - mark_before.inserts,
            inserted_rows=mark.inserted_rows - mark_before.inserted_rows,
            cpu_s={role: cpu[role] - cpu_before[role] for role in cpu},
            peaks=self._probe.take(),
            lateness_s=max(progress.lateness_ns[steps_before:], default=0) / 1e9,
        )


def merged(histograms: dict[str, LatencyHistogram]) -> LatencyHistogram:
    """All tables' values together."""
    total = LatencyHistogram()
    for histogram in histograms.values():
        total.merge(histogram)
    return total


def run_load(
    settings: Settings, schedule: Schedule, tables: Sequence[str], *, gc: GcState = "freeze"
) -> LoadResult:
    """Offer the rows of one or two phases to a recorder, drain it, close it, and count."""
    before = {
        name: stored.rows for name, stored in rig.stored(settings, list(ALL_TABLES + OWN_TABLES)).items()
    }
    reel = make_reel(tables, schedule.phases[0].rows_per_s)
    names = ("steady", "burst")[: len(schedule.phases)]
    rss_before = rig.rss_bytes()
    phases: list[PhaseResult] = []
    progress = Progress()
    with Recorder(settings) as recorder:
        recorder.flush(DRAIN_TIMEOUT_S)
        with rig.Probe(recorder) as probe, gc_state(gc):
            meter = _Meter(recorder, probe)
            for progress in drive(
                reel.events(time.time_ns()), recorder.record, schedule, keep_lateness=True, progress_s=0.05
            ):
                if progress.phase > len(phases):
                    phases.append(meter.end(names[len(phases)], progress))
            # Rows of the last phase that are still on their way belong to it.
            drain_began = time.perf_counter()
            recorder.flush(DRAIN_TIMEOUT_S)
            drain_s = time.perf_counter() - drain_began
            phases.append(meter.end(names[len(phases)], progress))
    balance = recorder.balance()
    after = rig.stored(settings, list(balance))
    lag_by_table: dict[str, LatencyHistogram] = {}
    for name, phase in itertools.product(balance, phases):
        lag_by_table.setdefault(name, LatencyHistogram()).merge(phase.lag_by_table[name])
    return LoadResult(
        phases=phases,
        drain_s=drain_s,
        offered=progress.accepted + progress.shed,
        shed=progress.shed,
        balance=balance,
        stored={name: rows.rows - before.get(name, 0) for name, rows in after.items()},
        doubled={name: rows.rows - rows.identities for name, rows in after.items()},
        lag_by_table=lag_by_table,
        rss_before_bytes=rss_before,
    )
