"""A table under retention that knows each row it ever got, and what must be true of it whatever runs did, and whenever
they stopped.

The table is the core pack's market data on a real engine, cut as its policy says, the archive a real folder. The clock
is the world's own, at the end of August 2024; partitions are settled as soon as no row for them waits in a log. `Steps`
lets something happen before or after any step of a run.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.archives import Stopping
from harness.bars_desk import Desk
from harness.bars_plain import HOUR_NS, Key, Said, differences, plain_bars
from harness.retention_cuts import Time, cut_anew, symbol_of, time_at, time_name
from harness.retention_runs import Asked

from recorder.bars.proof import BarsProof
from recorder.bars.windows import ALL_BARS
from recorder.retaining.run import PartsSource
from retention.archive import FolderStore, Place, partition_of, read_files
from retention.archive.pieces import places
from retention.archive.verify import check, read_back
from retention.due import Kind, Limits
from retention.errors import ManifestError, RetentionError, VerifyError
from retention.holds import Hold
from retention.live_facts import read_facts
from retention.live_holds import HOLD, LIFT, HoldRow, append
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import Outcome, Runner, State, Subject
from retention.tiers import set_ttl
from schemas.core.flags import MarketFlag
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.live import read_tables
from schemas.policy import TablePolicy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TABLE, TIER, VIEW = "market_data", "archived_market_data", "market_data_all"
START_NS = 1_724_889_600_000_000_000  # 2024-08-29: a month ends soon
LIMITS = Limits(settle_s=-1e12, merge_parts=3, merge_hours=(0, 0))
(KEPT,) = (table.policy for table in PACK.tables if table.name == TABLE)
OTHERS_GIVE = frozenset({"spread_mean", "quoted_ns"})
"""What a bar has of the hour before it."""
NO_MERGES = "max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1"
"""Of the server's own; OPTIMIZE merges all the same."""


class DeedFailed(BaseException):
    """What was done amid a run broke a law; a run catches every other error."""


class Steps:
    """Does `deed`, once, when a run has come past so many steps of a kind: `command`, `query`, `store`, `lock`."""

    def __init__(self, kind: str = "", left: int = 0, deed: Callable[[], object] = lambda: None):
        self._kind, self._left, self._deed = kind, left, deed
        self.happened = False

    def step(self, kind: str) -> None:
        """Before a step, and after it."""
        if kind != self._kind or self.happened:
            return
        if self._left == 0:
            self.happened = True
            try:
                self._deed()
            except Exception as error:
                raise DeedFailed(error) from error
        self._left -= 1


class SteppingExecutor(ClientExecutor):
    """Tells of each statement, before it and after it."""

    def __init__(self, client: Client, steps: Steps):
        super().__init__(client)
        self._steps = steps

    def command(self, sql: str) -> object:
        """Run a statement."""
        self._steps.step("command")
        answer = super().command(sql)
        self._steps.step("command")
        return answer

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a statement."""
        self._steps.step("query")
        return super().query(sql, parameters)


class SteppingStore(Stopping):
    """Tells of each call, before it and after it."""

    def __init__(self, store: FolderStore, steps: Steps):
        super().__init__(store)
        self._steps = steps

    def _call(self, call: Callable[[], Any]) -> Any:
        self._steps.step("store")
        answer = call()
        self._steps.step("store")
        return answer


class World:
    """One table, its archive, its bars, and what is asked of it; made anew by `begin`."""

    def __init__(self, desk: Desk):
        self.desk, self.client, self.database = desk, desk.client, desk.database
        self.executor = ClientExecutor(desk.client)
        self.told: collections.Counter[str] = collections.Counter()  # in all examples
        self.client.command(f"ALTER TABLE {self.database}.{TABLE} MODIFY SETTING {NO_MERGES}")

    def begin(self, root: Path, policy: RetentionPolicy) -> None:
        """Without a row; with an empty archive."""
        self.desk.empty(TABLE, "retention_holds", *(bars.stored for bars in ALL_BARS))
        for name in (VIEW, TIER):
            self.client.command(f"DROP TABLE IF EXISTS {self.database}.{name} SYNC")
        cut_anew(self.client, self.database, TABLE, policy)
        self._give_ttl(self.executor, TABLE, policy.native_ttl)
        self.store, self.policy, self.now_ns = FolderStore(root), policy, START_NS
        self.said: dict[int, Said] = {}
        self.there: set[int] = set()
        self.archived_gone: set[int] = set()
        self.bars_gone: set[int] = set()
        self.bars_expected: list[dict[Key, dict[str, Any]]] = [{} for _ in ALL_BARS]
        self.own_values_alone: set[int] = set()
        self.stuck: set[int] = set()
        self.may_be_stuck: set[int] = set()
        self.since_the_run: set[int] = set()
        self.holds: dict[str, Hold] = {}
        self.waiting: list[int] = []
        self.locked = False
        self.twins = False
        self.damaged: _Damage | None = None
        self._seen_files: list[tuple[str, int, int]] = []
        self._vouched: set[int] = set()

    # -- what happens --

    def rows_come(self, times_ns: Sequence[int]) -> None:
        """One insert; every third is a trade, the others are quotes."""
        values = []
        for at_ns in times_ns:
            seq = len(self.said)
            trade = (100.0 + seq, 1.0) if seq % 3 == 0 else None
            quote = None if trade else (10.0, 10.0 + seq % 4)
            one = Said(
                "binance.spot", symbol_of(seq, self.policy), at_ns + seq, (seq,), trade=trade, quote=quote
            )
            hours = {one.at // HOUR_NS - 1, one.at // HOUR_NS}
            gone = {self.said[other].at // HOUR_NS for other in self.bars_gone}
            if hours & gone:
                self.own_values_alone.add(seq)
            if one.at // HOUR_NS in gone:
                self.stuck.add(seq)  # no bar can be made with it
            elif one.at // HOUR_NS - 1 in gone and self._has_bars(one.at // HOUR_NS):
                self.may_be_stuck.add(seq)  # these began with a quote that is gone
            self.said[seq] = one
            self.there.add(seq)
            self.since_the_run.add(seq)
            kind = int(MarketFlag.TRADE if trade else MarketFlag.QUOTE)
            numbers = [*(quote or ("NULL", "NULL")), *(trade or ("NULL", "NULL"))]
            at = f"fromUnixTimestamp64Nano({one.at}, 'UTC')"
            told = ", ".join(map(str, numbers))
            values.append(f"({at}, 'test', {at}, '{one.symbol}', '{one.source}', {kind}, 7, {seq}, {told})")
        self.client.command(
            f"INSERT INTO {self.database}.{TABLE} (ts_local, run_id, ts_exchange, symbol, source, flags, _log, _seq, "
            f"bid_px1, ask_px1, last_price, last_qty) SETTINGS insert_deduplicate = 0 VALUES {', '.join(values)}"
        )

    def rows_wait(self, times_ns: Sequence[int]) -> None:
        """In a log, for the next time that it is emptied."""
        self.waiting += times_ns

    def log_is_emptied(self) -> None:
        """What waits comes."""
        times_ns, self.waiting = self.waiting, []
        if times_ns:
            self.rows_come(times_ns)

    def merges(self, table: str, partition: str) -> None:
        """The server merges a partition into one part."""
        self.client.command(f"OPTIMIZE TABLE {self.database}.{table} PARTITION ID '{partition}' FINAL")

    def move_is_cut_short(self, partition: str) -> None:
        """As by a kill of the server: a partition that moved is in the live table as well."""
        self.client.command(
            f"ALTER TABLE {self.database}.{TABLE} ATTACH PARTITION ID '{partition}' FROM {self.database}.{TIER}"
        )
        self.twins = True

    def hold(self, hold: Hold) -> bool:
        """As the command does: a row, and no TTL any more. Not where a run has the lock: the command waits for it."""
        if self.locked:
            return False
        self.look()
        row = HoldRow(
            name=hold.name,
            event=HOLD,
            tables=(hold.table,) if hold.table else (),
            since_ns=hold.since_ns,
            until_ns=hold.until_ns,
        )
        append(self.executor, self.database, row)
        self.holds[hold.name] = hold
        for table in self.tables():
            self._give_ttl(self.executor, table, "")
        return True

    def lift(self, name: str) -> None:
        """Nothing is held under this name any more."""
        append(self.executor, self.database, HoldRow(name=name, event=LIFT))
        del self.holds[name]

    def damage(self, path: Path, how: str) -> None:
        """Someone removes or changes a file of the archive, one at a time."""
        content = path.read_bytes()
        if how == "removed":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        self.damaged = _Damage(path, content, path.read_bytes() if path.exists() else None)

    def mend(self) -> None:
        """It is brought back from a copy, unless a run wrote it anew."""
        assert self.damaged is not None
        path, content, damaged = self.damaged
        if (path.read_bytes() if path.exists() else None) == damaged:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.damaged = None

    # -- runs --

    def subjects(self) -> list[Subject]:
        """The table before the one that its partitions move to, as the command has them."""
        tier = self.policy.of_tier()
        return [Subject(policy, self._kept()) for policy in (self.policy, tier) if policy is not None]

    def runner(self, steps: Steps) -> Runner:
        """A run that tells of its steps."""
        executor = SteppingExecutor(self.client, steps)

        def source(place: Place, parts: Sequence[str]) -> PartsSource:
            return PartsSource(Asked(self.client), self.database, place, parts)

        def alter_ttl(table: str) -> None:
            self._give_ttl(executor, table, self.wanted_ttl(self.policy))

        return Runner(
            executor,
            self.database,
            store=SteppingStore(self.store, steps),
            source_of=source,
            alter_ttl=alter_ttl,
            lock=lambda: self._lock(steps),
            recorder_version="0",
            limits=LIMITS,
            now_ns=lambda: self.now_ns,
            barring=BarsProof(executor, self.database),
            pending_oldest_ns=lambda table: min(self.waiting, default=None),
        )

    def run(self, steps: Steps) -> Iterator[Outcome]:
        """A run over the table, and over the one that its partitions move to."""
        runner = self.runner(steps)
        for subject in self.subjects():
            for outcome in runner.run(subject):
                self.told[f"{outcome.action.kind} {outcome.state}"] += 1
                yield outcome

    def complete(self) -> list[Outcome]:
        """A run that nothing disturbs, and all that must be true after it."""
        self.look()
        self.since_the_run.clear()
        outcomes = list(self.run(Steps()))
        self.look()
        self._must_be_done(outcomes)
        return outcomes

    @contextlib.contextmanager
    def _lock(self, steps: Steps) -> Iterator[_Held]:
        if self.locked:
            raise RetentionError("locked by another run")
        steps.step("lock")
        self.locked = True
        try:
            yield _Held(steps)
        finally:
            self.locked = False

    # -- laws --

    def look(self) -> None:
        """Look at all there is: what went might go, and what must be there is."""
        live, tier = (self._seqs(table) for table in (TABLE, TIER))
        for table, seqs in ((TABLE, live), (TIER, tier)):
            assert len(set(seqs)) == len(seqs), f"rows are twice in {table}"
        assert self.twins or not set(live) & set(tier), "rows are in both tables"
        there = {*live, *tier}
        if VIEW in self._names():
            assert self._seqs(VIEW) == sorted(there), "the view does not have each row once"
        assert there <= self.said.keys(), "rows are there that nobody inserted"
        went = self.there - there
        assert there <= self.there, "rows are back that were gone"
        if went:
            self._may_go(went, there)
        self.there = there
        assert self.archived_gone <= self.vouched() or self.damaged, "dropped rows are in no verified piece"

    def _may_go(self, went: set[int], left: set[int]) -> None:
        policy = self.policy
        for seq in went:
            at_ns = self.said[seq].at
            time = self._time(at_ns)
            assert policy.keep_days is not None, f"row {seq} is gone, and rows are kept for ever"
            assert at_ns + policy.keep_days * DAY_NS < self.now_ns, f"row {seq} is gone before its time"
            assert time.end_ns <= self.now_ns, f"row {seq} is gone of an open partition"
            assert not self._held(time), f"row {seq} is gone, and was held"
            assert not self._waits_for(time), f"row {seq} is gone, and others for its partition wait in a log"
        if policy.archive_after_days is not None:
            assert went <= self.vouched(), "rows are gone that no verified piece has"
            self.archived_gone |= went
        if policy.bars:
            assert not went & self.stuck, "rows are gone that no bar can be of"
            # They came when the hour after those that went was looked at, or before: its bars have them, or not.
            beside = {self._hour(seq) + 1 for seq in went}
            self.may_be_stuck |= {seq for seq in left & self.since_the_run if self._hour(seq) in beside}
            self._bars_must_be_of(went, left)
            self.bars_gone |= went

    def _bars_must_be_of(self, went: set[int], left: set[int]) -> None:
        """The bars of the hours of these rows equal those computed of all rows in another way."""
        times = {self._time(self.said[seq].at) for seq in went}
        # One insert came amid the run, at most: its rows are in the bars, or none of them is.
        late = {seq for seq in left & self.since_the_run if self._time(self.said[seq].at) in times}
        all_rows = (self.bars_gone | went | left) - self.stuck
        wrong = self._differ(went, all_rows)
        if wrong and late:
            self.stuck |= {seq for seq in late if self._hour(seq) in {self._hour(gone) for gone in went}}
            self.own_values_alone |= late
            wrong = self._differ(went, all_rows - late)
        assert not wrong, f"bars are not those of the rows that went: {wrong[:3]}"

    def _differ(self, went: set[int], all_rows: set[int]) -> list[str]:
        hours = set(map(self._hour, went))
        beside = hours | {hour - 1 for hour in hours}
        own_alone = any(self._hour(seq) in beside for seq in self.own_values_alone)
        wrong = []
        for number, bars in enumerate(ALL_BARS):
            expected = {
                key: {name: value for name, value in bar.items() if not (own_alone and name in OTHERS_GIVE)}
                for key, bar in plain_bars((self.said[seq] for seq in all_rows), bars.window_ns).items()
                if key[2] // HOUR_NS in hours
            }
            wrong += differences(expected, self._found(bars, expected))
            if not wrong:
                self.bars_expected[number] |= expected
        return wrong

    def _has_bars(self, hour: int) -> bool:
        return any(key[2] // HOUR_NS == hour for bars in ALL_BARS for key in self.desk.bars(bars))

    def _found(self, bars: Any, expected: Mapping[Key, Any]) -> dict[Key, dict[str, Any]]:
        return {key: bar for key, bar in self.desk.bars(bars).items() if key in expected}

    def bars_stay(self) -> None:
        """The bars of rows that went are what they were."""
        for bars, every in zip(ALL_BARS, self.bars_expected, strict=True):
            changed = differences(every, self._found(bars, every))
            assert not changed, f"bars changed after their rows went: {changed[:3]}"

    def _must_be_done(self, outcomes: Sequence[Outcome]) -> None:
        """Nothing failed without a reason; nothing is kept that had to go; what is to be archived is."""
        failed = {one.action.partition for one in outcomes if one.state is State.FAILED}
        for one in outcomes:
            if one.state is State.FAILED:
                assert self._excused(one), f"failed for no reason: {one}"
            elif one.state is State.LEFT:
                assert one.action.kind is Kind.HELD or one.action.partition in failed, (
                    f"left for no reason: {one}"
                )
        policy, archive_days = self.policy, self.policy.archive_after_days
        vouched = self.vouched()
        for subject in self.subjects():
            name = subject.policy.table
            if (live := read_tables(self.executor, self.database).get(name)) is None:
                continue
            assert live.ttl == self.wanted_ttl(policy), f"{name} carries the TTL {live.ttl!r}"
            (facts,) = read_facts(self.executor, self.database, [(live, self._kept())])
            for part in facts.partitions:
                time = self._time(part.min_ns)
                if part.id in failed or time.end_ns > self.now_ns or self._waits_for(time):
                    continue
                expired = _older(part.max_ns, policy.keep_days, self.now_ns)
                moves = name == TABLE and _older(part.max_ns, policy.tier_after_days, self.now_ns)
                held = self._held(time)
                assert held or not expired, f"{name} {part.id} is kept past its time"
                assert held or not moves, f"{name} {part.id} was to move"
                assert part.parts <= LIMITS.merge_parts or held or (archive_days is not None), (
                    f"{part} is not merged"
                )
                if _older(part.max_ns, archive_days, self.now_ns) and not self._is_damaged(part.id):
                    of_it = self._of(part.id)
                    rows = self.there & of_it
                    # As many others in the archive are told from these when they are to go, by who they are.
                    assert len(vouched & of_it) == len(rows) or rows <= vouched, (
                        f"{name} {part.id} is not archived"
                    )
        if not failed:
            merged = {one.action.partition for one in outcomes if one.action.kind is Kind.MERGE}
            runner = self.runner(Steps())
            for subject in self.subjects():
                # A receipt of bars names parts: of those that this run merged, the next one looks at the bars again.
                # And where rows went and others are kept, each run compares by who they are, not by their number.
                due = [
                    action
                    for action in runner.plan(subject)
                    if action.kind.is_work
                    and not (action.kind is Kind.BUILD_BARS and action.partition in merged)
                    and not (action.kind is Kind.ARCHIVE and self._has_lost(action.partition, vouched))
                ]
                assert due == [], f"something is due right after a run: {due}"

    def _excused(self, outcome: Outcome) -> bool:
        if self._is_damaged(outcome.action.partition):
            return True
        stuck = self._of(outcome.action.partition) & self.there & (self.stuck | self.may_be_stuck)
        if stuck and "are gone" in outcome.told:
            return True
        return self.twins and f"rows that {TIER} has as well" in outcome.told

    def _has_lost(self, partition: str, vouched: set[int]) -> bool:
        """Whether the archive has all rows of a partition, and others that went."""
        of_it = self._of(partition)
        return self.there & of_it <= vouched and not vouched & of_it <= self.there

    def _is_damaged(self, partition: str) -> bool:
        return self.damaged is not None and time_name(partition) in str(self.damaged.path).replace("-", "")

    def ends(self) -> None:
        """At the end all pieces are what they say, a last run does what is left, and one more adds nothing."""
        if self.damaged is not None:
            self.mend()
        self.complete()
        archived = [path for path in self.files() if "table=" in str(path)]
        self.complete()
        assert archived == [path for path in self.files() if "table=" in str(path)], "archived once more"
        self.bars_stay()
        for place in places(self.store):
            assert check(self.store, place).faults == (), "the archive is damaged, and by nobody else"

    # -- what there is --

    def vouched(self) -> set[int]:
        """The rows of verified pieces, read back whole; a piece that is not true has none."""
        root = self.store.root
        files = sorted(
            (str(path), path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
            for path in root.glob("table=*/*/*.*")
            if path.is_file()
        )
        if files != self._seen_files:
            self._seen_files, self._vouched = files, set()  # type: ignore[assignment]
            for place in places(self.store):
                self._vouched |= self._vouched_at(place)
        return self._vouched

    def _vouched_at(self, place: Place) -> set[int]:
        found: set[int] = set()
        with contextlib.suppress(ManifestError):
            for piece in partition_of(self.store, place).pieces:
                if piece.receipt is None:
                    continue
                with contextlib.suppress(VerifyError):
                    read_back(piece.manifest, self.store)
                    mine = [
                        seq
                        for batch in read_files(piece.manifest, self.store, ["_log", "_seq"])
                        for seq in batch.column("_seq").to_pylist()
                    ]
                    assert not found & set(mine), f"{place}: a row is archived twice"
                    assert len(set(mine)) == len(mine), f"{place}: a row is archived twice"
                    found |= set(mine)
        return found

    def files(self) -> list[Path]:
        """Of the archive, of any kind."""
        return sorted(path for path in self.store.root.rglob("*") if path.is_file() and path.name[0] != ".")

    def tables(self) -> list[str]:
        """The table, and the one that its partitions move to, if it is there."""
        return [name for name in (TABLE, TIER) if name in self._names()]

    def partitions(self, table: str) -> list[str]:
        """The ids of a table's partitions."""
        rows = self.executor.query(
            "SELECT DISTINCT partition_id FROM system.parts WHERE database = {db:String} AND table = {t:String} "
            "AND active ORDER BY partition_id",
            {"db": self.database, "t": table},
        )
        return [str(row[0]) for row in rows]

    def wanted_ttl(self, policy: RetentionPolicy) -> str:
        """What it should."""
        held = any(hold.table in (None, TABLE) for hold in self.holds.values())
        return "" if held or policy.proof_first else policy.native_ttl

    def _give_ttl(self, executor: ClientExecutor, table: str, ttl: str) -> None:
        if read_tables(executor, self.database)[table].ttl != ttl:
            set_ttl(executor, self.database, table, ttl)

    def _kept(self) -> TablePolicy:
        cut = {"partition": self.policy.partition, "symbol_groups": self.policy.symbol_groups}
        return dataclasses.replace(KEPT, **cut)

    def _time(self, at_ns: int) -> Time:
        return time_at(at_ns, self.policy.partition)

    def _of(self, partition: str) -> set[int]:
        """Every row that ever came for the day or month of a partition."""
        name = time_name(partition)
        return {seq for seq, one in self.said.items() if self._time(one.at).name == name}

    def _waits_for(self, time: Time) -> bool:
        """Whether rows wait that may be of this time: of all that wait the oldest one is known."""
        return bool(self.waiting) and min(self.waiting) < time.end_ns

    def _held(self, time: Time) -> bool:
        return any(
            hold.table in (None, TABLE)
            and (hold.since_ns is None or hold.since_ns < time.end_ns)
            and (hold.until_ns is None or hold.until_ns > time.start_ns)
            for hold in self.holds.values()
        )

    def _hour(self, seq: int) -> int:
        return self.said[seq].at // HOUR_NS

    def _names(self) -> set[str]:
        rows = self.executor.query(
            "SELECT name FROM system.tables WHERE database = {db:String}", {"db": self.database}
        )
        return {str(row[0]) for row in rows}

    def _seqs(self, table: str) -> list[int]:
        if table != TABLE and table not in self._names():
            return []
        rows = self.executor.query(f"SELECT _seq FROM {self.database}.{table} ORDER BY _seq")
        return [int(row[0]) for row in rows]


class _Damage(NamedTuple):
    """A file of the archive, what was in it, and what is (None: the file is not there)."""

    path: Path
    was: bytes
    now: bytes | None


class _Held:
    """A lock that is held."""

    def __init__(self, steps: Steps):
        self._steps = steps

    def renew(self) -> None:
        """Before a change."""
        self._steps.step("lock")


def _older(newest_ns: int, days: int | None, now_ns: int) -> bool:
    return days is not None and newest_ns + days * DAY_NS < now_ns
