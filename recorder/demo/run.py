"""What the demonstration does; how it looks is `recorder.demo.show`'s."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from recorder.balance import Balance
from recorder.demo.questions import fills_of_a_strategy, life_of_an_order, top_of_book_around_a_fill
from recorder.recorder import Recorder
from recorder.settings import Settings
from recorder.simulate import (
    Mix,
    OrderTruth,
    Progress,
    Session,
    SimulationOptions,
    SimulationResult,
    Steady,
    StrategyTruth,
    Truth,
    run_simulation,
)

DEMO_MINUTES = 4.0
DEMO_MIX = Mix(quotes_per_s=70.0, trades_per_s=25.0, orders_per_s=12.0, guardrails_per_min=4.0)
FLUSH_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: rows sent to it, where they are, and how long rows took to become queryable."""

    table: str
    rows: int
    balance: Balance
    lag_p50_s: float
    lag_p99_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, the SQL that answers it, and the answer."""

    question: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    check: str = ""
    """What the simulator knows about it; empty where it has nothing to say."""
    agrees: bool = True
    """Whether the answer says what the simulator knows."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """All there is to show. `send_s` is handing over, `queryable_s` until every row could be read."""

    target: str
    data_dir: str
    run_id: str
    simulation: SimulationResult
    start_s: float
    send_s: float
    queryable_s: float
    tables: tuple[TableReport, ...]
    answers: tuple[Answer, ...]
    next_command: str

    @property
    def rows_per_s(self) -> float:
        """Rows a second from the first handed over to the last queryable."""
        return self.simulation.rows / self.queryable_s

    @property
    def exact(self) -> bool:
        """Whether every row of every table is accounted for."""
        return all(table.balance.exact for table in self.tables)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "target": self.target,
            "data_dir": self.data_dir,
            "run_id": self.run_id,
            "start_s": round(self.start_s, 3),
            "send_s": round(self.send_s, 3),
            "queryable_s": round(self.queryable_s, 3),
            "rows": self.simulation.rows,
            "rows_per_s": round(self.rows_per_s),
            "balance_exact": self.exact,
            "tables": [
                {
                    "table": t.table,
                    "rows": t.rows,
                    "lag_p50_s": round(t.lag_p50_s, 4),
                    "lag_p99_s": round(t.lag_p99_s, 4),
                    "balance": t.balance.as_dict(),
                }
                for t in self.tables
            ],
            "answers": [asdict(answer) for answer in self.answers],
            "simulation": self.simulation.as_dict(),
            "next_command": self.next_command,
        }


Watch = Callable[[float, Progress], None]
"""Told how far the simulation is: a share from 0 to 1, and the counts so far."""


def run_demo(
    settings: Settings, *, seed: int = 1, minutes: float = DEMO_MINUTES, watch: Watch | None = None
) -> DemoReport:
    """Record a simulated session and ask three questions about it; the database stays.

    Raises:
        SinkError: the database cannot be opened.
        NotDurable: rows were not queryable in time.
    """
    options = SimulationOptions(seed=seed, minutes=minutes, mix=DEMO_MIX)

    def on_progress(progress: Progress, session: Session) -> None:
        if watch is not None:
            watch(session.share, progress)

    began = time.perf_counter()
    with Recorder(settings) as recorder:
        started = time.perf_counter()
        simulation = run_simulation(Steady(recorder), options, on_progress)
        sent = time.perf_counter()
        recorder.flush(FLUSH_TIMEOUT_S)
        queryable = time.perf_counter()
        answers = _answers(recorder, simulation.truth)
        status = recorder.status()["tables"]
    balances = recorder.balance()  # after close, so that nothing is pending any more
    accepted = simulation.accepted
    tables = tuple(
        TableReport(
            name,
            accepted.get(name, 0) + simulation.shed.get(name, 0),
            balance,
            float(status[name]["lag"]["p50_s"]) if name in status else 0.0,
            float(status[name]["lag"]["p99_s"]) if name in status else 0.0,
        )
        for name, balance in sorted(balances.items(), key=lambda item: -item[1].received)
    )
    folder = _shown_folder(settings.data_dir)
    # A password in the target is masked here; whoever copies the command puts it in again.
    where = (
        f"--data-dir {folder}"
        if settings.target.embedded
        else f"--target {shlex.quote(str(settings.target))}"
    )
    return DemoReport(
        target=str(settings.target),
        data_dir=folder,
        run_id=recorder.run_id,
        simulation=simulation,
        start_s=started - began,
        send_s=sent - started,
        queryable_s=queryable - started,
        tables=tables,
        answers=answers,
        next_command=f'recorder {where} query "SELECT status, count() FROM orders_current GROUP BY status"',
    )


def _answers(recorder: Recorder, truth: Truth) -> tuple[Answer, ...]:
    order_id, fill_id = _a_telling_order(recorder, truth)
    strategy = max(truth.fills, key=lambda name: truth.fills[name].fills)
    life = _ask(
        recorder, f"What happened to order {order_id}, from intent to fill?", life_of_an_order(order_id)
    )
    traded = _ask(
        recorder, f"What did strategy {strategy} trade?", fills_of_a_strategy(strategy, recorder.run_id)
    )
    around = _ask(
        recorder,
        f"What did the market look like around fill {fill_id}?",
        top_of_book_around_a_fill(fill_id),
    )
    return _checked_life(life, truth.orders[order_id]), _checked_fills(traded, truth.fills[strategy]), around


def _checked_life(answer: Answer, truth: OrderTruth) -> Answer:
    steps = Counter(str(row[0]).partition(":")[0] for row in answer.rows)
    agrees = (steps["order"], steps["fill"]) == (truth.transitions, truth.fills)
    said = (
        f"The simulator says: {truth.status} after {truth.transitions} transitions, {truth.fills} fills of "
        f"{truth.filled_qty:f} {truth.symbol} together"
    )
    return replace(answer, check=f"{said}: {_verdict(agrees)}", agrees=agrees)


def _checked_fills(answer: Answer, truth: StrategyTruth) -> Answer:
    fills = sum(row[1] for row in answer.rows)
    notional = sum((row[3] for row in answer.rows), Decimal(0))
    agrees = fills == truth.fills and notional == truth.notional
    said = f"The simulator says: {truth.fills:,} fills, notional {truth.notional:,f}"
    return replace(answer, check=f"{said}: {_verdict(agrees)}", agrees=agrees)


def _verdict(agrees: bool) -> str:
    return "the same, to the last digit." if agrees else "NOT the same."


def _a_telling_order(recorder: Recorder, truth: Truth) -> tuple[str, str]:
    """An order that was filled in a few parts, and its first fill's id."""
    full = [(order_id, order) for order_id, order in truth.orders.items() if order.status == "Filled"]
    order_id, _ = min(full, key=lambda item: (abs(item[1].fills - 2), -item[1].transitions, item[0]))
    sql = f"SELECT fill_id FROM fills_unique WHERE client_order_id = '{order_id}' ORDER BY ts_first_local LIMIT 1"
    return order_id, str(_query(recorder, sql)[0][0])


def _ask(recorder: Recorder, question: str, sql: str) -> Answer:
    table = recorder.ask(lambda sink: sink.query_arrow(sql), FLUSH_TIMEOUT_S)
    rows = tuple(
        tuple(value.decode() if isinstance(value, bytes) else value for value in row.values())
        for row in table.to_pylist()
    )
    return Answer(question, sql, tuple(table.column_names), rows)


def _query(recorder: Recorder, sql: str) -> Sequence[Sequence[Any]]:
    return recorder.ask(lambda sink: sink.query(sql), FLUSH_TIMEOUT_S)


def _shown_folder(folder: Path) -> str:
    """As one would type it from here."""
    try:
        return shlex.quote(str(folder.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(folder))
