"""Retention carried out on real tables and archives: nothing goes unproven, late rows stay, any stop is survived."""

from __future__ import annotations

import fcntl
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from harness.archives import Stopping
from harness.backends import Place as DatabasePlace
from harness.killing import Killable
from harness.retention_runs import Asked, Doing, Ended, Fatal, StoppingExecutor

from recorder.retaining.run import PartsSource
from retention.archive import FolderStore, Place, Store, partition_of, read_files
from retention.due import Kind, Limits
from retention.errors import StoreError
from retention.live_facts import server_time_ns
from retention.live_holds import HoldRow, append
from retention.policy import DAY_NS, RetentionPolicy
from retention.runner import Outcome, Runner, State, Subject
from schemas.core.tables import PACK
from schemas.executor import ClientExecutor
from schemas.manager import Manager
from schemas.policy import Durability, Overflow, Partition, TablePolicy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
DAY = Place("things", "2024-08-08")
KEPT = TablePolicy(
    durability=Durability.MEMORY,
    overflow=Overflow.DROP_OLDEST,
    partition=Partition.DAY,
    order_by=("ts_local",),
)
ARCHIVED = RetentionPolicy(table="things", partition=Partition.DAY, keep_days=7, archive_after_days=2)
ONLY_KEPT = RetentionPolicy(table="things", partition=Partition.DAY, keep_days=7)
SETTINGS = {"RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "5"}


class Things:
    """A table of things, an archive, and runs over them some days later."""

    def __init__(self, client: Client, database: str, root: pathlib.Path):
        self.client, self.database, self.root = client, database, root
        self.executor = ClientExecutor(client)
        self.store = FolderStore(root)
        client.command(
            f"CREATE TABLE {database}.things (ts_local DateTime64(9, 'UTC'), text String, _log UInt64, _seq UInt64) "
            "ENGINE = MergeTree PARTITION BY toYYYYMMDD(ts_local) ORDER BY ts_local"
        )
        client.command(f"SYSTEM STOP MERGES {database}.things")

    def insert(self, *seqs: int, day: int = 0) -> None:
        values = ", ".join(
            f"(fromUnixTimestamp64Nano({FIRST_NS + day * DAY_NS + seq}, 'UTC'), 'thing {seq}', 7, {seq})"
            for seq in seqs
        )
        self.client.command(f"INSERT INTO {self.database}.things VALUES {values}")

    def seqs(self) -> list[int]:
        rows = self.client.query(f"SELECT _seq FROM {self.database}.things ORDER BY _seq").result_rows
        return [row[0] for row in rows]

    def archived(self) -> list[int]:
        known = partition_of(self.store, DAY)
        assert known.verified or not known.pieces
        batches = [batch for piece in known.pieces for batch in read_files(piece.manifest, self.store)]
        return sorted(seq for batch in batches for seq in batch.column("_seq").to_pylist())

    def vouched(self) -> list[int]:
        """The rows of pieces that have a receipt."""
        known = partition_of(self.store, DAY)
        pieces = [piece for piece in known.pieces if piece.receipt is not None]
        batches = [batch for piece in pieces for batch in read_files(piece.manifest, self.store)]
        return sorted(seq for batch in batches for seq in batch.column("_seq").to_pylist())

    def runner(
        self,
        *,
        store: Store | None = None,
        executor: ClientExecutor | None = None,
        between: Callable[[], object] = lambda: None,
        settle_s: float = 60.0,
        after_ns: int = DAY_NS,
        lagging: bool = False,
    ) -> Runner:
        def source(place: Place, parts: Sequence[str]) -> PartsSource:
            return PartsSource(Asked(self.client), self.database, place, parts[lagging:])

        return Runner(
            executor or self.executor,
            self.database,
            store=store or self.store,
            source_of=source,
            alter_ttl=lambda table: None,
            lock=Doing(between),
            recorder_version="0",
            limits=Limits(settle_s=settle_s, merge_hours=(0, 0), merge_parts=2),
            now_ns=lambda: server_time_ns(self.executor) + after_ns,
        )

    def run(self, policy: RetentionPolicy = ARCHIVED, **how: Any) -> list[Outcome]:
        return list(self.runner(**how).run(Subject(policy, KEPT)))


@pytest.fixture
def things(client: Client, database: str, tmp_path: pathlib.Path) -> Things:
    return Things(client, database, tmp_path / "archive")


def _told(outcomes: Sequence[Outcome]) -> list[tuple[Kind, State]]:
    return [(outcome.action.kind, outcome.state) for outcome in outcomes]


ARCHIVE_DONE = (Kind.ARCHIVE, State.DONE)
DROP_DONE = (Kind.DROP, State.DONE)


def test_what_is_due_is_done_and_then_nothing_is_due(things: Things) -> None:
    """Expired partitions go when they are archived; younger ones are archived and stay; a second run does nothing."""
    things.insert(1, 2)
    things.insert(3)
    young = (server_time_ns(things.executor) - FIRST_NS) // DAY_NS - 3
    things.insert(4, day=young)
    assert _told(things.run()) == [ARCHIVE_DONE, DROP_DONE, ARCHIVE_DONE]
    assert (things.seqs(), things.archived()) == ([4], [1, 2, 3])
    assert things.run() == []


def test_where_no_archive_is_due_what_has_expired_goes(things: Things) -> None:
    """Without an archive the plan's drops are done, and none is written."""
    things.insert(1)
    things.insert(2, day=(server_time_ns(things.executor) - FIRST_NS) // DAY_NS - 3)
    assert _told(things.run(ONLY_KEPT)) == [DROP_DONE]
    assert (things.seqs(), things.root.exists()) == ([2], False)


# -- late rows --


def test_a_row_that_comes_between_the_last_look_and_the_drop_stays(things: Things) -> None:
    """Only what was proven goes; the late row is archived and dropped by a later run, and is nowhere twice."""
    things.insert(1, 2)
    assert _told(things.run(between=lambda: things.insert(3))) == [ARCHIVE_DONE, DROP_DONE]
    assert (things.seqs(), things.archived()) == ([3], [1, 2])
    assert _told(things.run()) == [ARCHIVE_DONE, DROP_DONE]
    assert (things.seqs(), things.archived()) == ([], [1, 2, 3])


def test_a_row_that_comes_without_an_archive_stays_too(things: Things) -> None:
    """A drop takes the parts that were looked at, not the partition."""
    things.insert(1)
    assert _told(things.run(ONLY_KEPT, between=lambda: things.insert(2))) == [DROP_DONE]
    assert things.seqs() == [2]


def test_a_row_that_comes_between_archive_and_drop_keeps_its_partition(things: Things) -> None:
    """What was proven is not what is there: nothing is dropped until it is proven anew."""
    things.insert(1, 2)
    run = things.runner().run(Subject(ARCHIVED, KEPT))
    assert _told([next(run)]) == [ARCHIVE_DONE]
    things.insert(3)
    assert _told(list(run)) == [(Kind.DROP, State.LEFT)]
    assert things.seqs() == [1, 2, 3]
    assert _told(things.run()) == [ARCHIVE_DONE, DROP_DONE]
    assert (things.seqs(), things.archived()) == ([], [1, 2, 3])


def test_as_many_other_rows_are_not_the_ones_that_were_proven(things: Things) -> None:
    """A receipt of as many rows proves nothing of other ones: their identities decide."""
    things.insert(1, 2)
    run = things.runner().run(Subject(ARCHIVED, KEPT))
    next(run)
    things.client.command(f"ALTER TABLE {things.database}.things DROP PARTITION 20240808")
    things.insert(3, 4)
    assert _told(list(run)) == [(Kind.VERIFY_ARCHIVE, State.DONE), DROP_DONE]
    assert (things.seqs(), things.archived()) == ([], [1, 2, 3, 4])


def test_a_merge_in_between_drops_nothing_unseen(things: Things) -> None:
    """What was merged away is not dropped, nor what it was merged into; the next run drops that."""
    things.insert(1)
    things.insert(2)

    def merge() -> None:
        things.client.command(f"SYSTEM START MERGES {things.database}.things")
        things.insert(3)
        things.client.command(f"OPTIMIZE TABLE {things.database}.things FINAL")

    assert _told(things.run(between=merge)) == [ARCHIVE_DONE, (Kind.DROP, State.LEFT)]
    assert things.seqs() == [1, 2, 3]
    assert _told(things.run()) == [ARCHIVE_DONE, DROP_DONE]
    assert (things.seqs(), things.archived()) == ([], [1, 2, 3])


# -- proof --


@pytest.mark.parametrize("gone", ["receipt-0000.json", "manifest-0000.json", "part-*.parquet"])
def test_nothing_goes_whose_archive_went(things: Things, gone: str) -> None:
    """A receipt, manifest or file that is gone right before the drop keeps the rows, and says so."""
    things.insert(1, 2)
    run = things.runner().run(Subject(ARCHIVED, KEPT))
    next(run)
    (path,) = (things.root / DAY.folder).glob(gone)
    path.unlink()
    (outcome,) = run
    assert outcome.state is State.FAILED
    assert outcome.action.kind is Kind.DROP
    assert things.seqs() == [1, 2]


def test_rows_that_the_archive_was_not_shown_stay(things: Things) -> None:
    """Where the archive read fewer rows than the table has, as from a replica that lags, nothing is proven."""
    things.insert(1)
    things.insert(2)
    assert _told(things.run(lagging=True)) == [(Kind.ARCHIVE, State.LEFT), (Kind.DROP, State.LEFT)]
    assert (things.seqs(), things.archived()) == ([1, 2], [2])
    assert _told(things.run()) == [ARCHIVE_DONE, DROP_DONE]
    assert (things.seqs(), things.archived()) == ([], [1, 2])


class Failing(Stopping):
    """A store that takes no file."""

    def put(self, name: str, draft: pathlib.Path) -> None:
        raise StoreError(f"{name}: no room")


def test_nothing_goes_that_cannot_be_archived(things: Things) -> None:
    """Where the archive cannot be read or written, that is told, and the rows stay."""
    things.insert(1)
    things.root.mkdir()
    (things.root / "table=things").write_text("no folder")
    assert _told(things.run()) == [(Kind.REPORT, State.FAILED)]
    (things.root / "table=things").unlink()
    full = Failing(things.store)
    assert _told(things.run(store=full)) == [(Kind.ARCHIVE, State.FAILED), (Kind.DROP, State.LEFT)]
    assert things.seqs() == [1]


@pytest.mark.parametrize("policy", [ARCHIVED, ONLY_KEPT])
def test_rows_that_nobody_is_shown_stay(things: Things, policy: RetentionPolicy) -> None:
    """Where the database shows this user some of the rows alone, the parts that have the others too are not dropped."""

    class Blind(ClientExecutor):
        def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
            hidden = f" SETTINGS additional_table_filters = {{'{things.database}.things': '_seq != 2'}}"
            return super().query(sql + hidden * (".things" in sql), parameters)

    things.insert(1, 2)
    outcomes = things.run(policy, executor=Blind(things.client))
    assert outcomes
    assert "2 rows, this database user is shown 1" in outcomes[0].told
    assert {outcome.state for outcome in outcomes} <= {State.FAILED, State.LEFT}
    assert things.seqs() == [1, 2]


def test_a_table_that_cannot_be_looked_at_is_told_and_keeps_no_other(things: Things) -> None:
    """What fails before anything is due is an outcome too: the run goes on with the next table."""
    things.insert(1)
    things.client.command(f"CREATE TABLE {things.database}.odd (n UInt8) ENGINE = MergeTree ORDER BY n")
    odd = RetentionPolicy(table="odd", partition=Partition.DAY, keep_days=7)
    runner = things.runner()
    assert _told(list(runner.run(Subject(odd, KEPT)))) == [(Kind.REPORT, State.FAILED)]
    assert _told(list(runner.run(Subject(ONLY_KEPT, KEPT)))) == [DROP_DONE]


def test_a_ttl_that_could_not_be_taken_keeps_parts_from_being_merged(things: Things) -> None:
    """A merge would delete by the TTL what is to be archived, held or kept for longer now."""

    def refuse(table: str) -> None:
        raise RuntimeError("no grant")

    things.client.command(
        f"ALTER TABLE {things.database}.things MODIFY TTL toDateTime(ts_local) + toIntervalDay(36500) "
        "SETTINGS materialize_ttl_after_modify = 0"
    )
    for seq in range(3):
        things.insert(seq)
    forever = RetentionPolicy(table="things", partition=Partition.DAY)
    runner = things.runner()
    runner._alter_ttl = refuse
    expected = [(Kind.DROP_TTL, State.FAILED), (Kind.MERGE, State.LEFT)]
    assert _told(list(runner.run(Subject(forever, KEPT)))) == expected


def test_bars_that_nobody_built_keep_their_rows(things: Things) -> None:
    """What this version does not do is said, and what waits for it is left."""
    things.insert(1)
    policy = RetentionPolicy(table="things", partition=Partition.DAY, keep_days=7, bars=True)
    assert _told(things.run(policy)) == [(Kind.BUILD_BARS, State.LEFT), (Kind.DROP, State.LEFT)]
    assert things.seqs() == [1]


def test_what_is_held_stays(things: Things) -> None:
    """Held before the run, or between its last look and the drop."""
    Manager(things.executor, [PACK], things.database).up()
    things.insert(1)

    def hold() -> None:
        append(things.executor, things.database, HoldRow(name="case", tables=("things",)))

    held = (Kind.HELD, State.LEFT)
    assert _told(things.run(between=hold)) == [ARCHIVE_DONE, (Kind.DROP, State.LEFT), held]
    assert _told(things.run()) == [held]
    assert things.seqs() == [1]


def test_small_parts_of_a_closed_partition_are_merged(things: Things) -> None:
    """More than so many parts become one."""
    for seq in range(3):
        things.insert(seq)
    things.client.command(f"SYSTEM START MERGES {things.database}.things")
    policy = RetentionPolicy(table="things", partition=Partition.DAY)
    assert _told(things.run(policy)) == [(Kind.MERGE, State.DONE)]
    assert things.run(policy) == []
    assert things.seqs() == [0, 1, 2]


def test_parts_that_go_before_they_are_merged_are_no_failure(things: Things) -> None:
    """As when the table's TTL takes them, or the engine merges them by itself, between the look and the merge."""

    class Late(ClientExecutor):
        def command(self, sql: str) -> object:
            if sql.startswith("OPTIMIZE"):
                things.client.command(f"TRUNCATE TABLE {things.database}.things")
            return super().command(sql)

    for seq in range(3):
        things.insert(seq)
    things.client.command(f"SYSTEM START MERGES {things.database}.things")
    policy = RetentionPolicy(table="things", partition=Partition.DAY)
    (outcome,) = things.run(policy, executor=Late(things.client))
    assert (outcome.action.kind, outcome.state) == (Kind.MERGE, State.LEFT)
    assert "no parts" in outcome.told


# -- stops --


def test_a_run_that_stops_at_any_step_is_completed_by_the_next(
    things: Things, embedded: None, tmp_path: pathlib.Path
) -> None:
    """Before each call of the archive and each drop: no row is lost on the way, and the next run leaves all as due."""

    def stops(what: str, number: int) -> bool:
        things.client.command(f"TRUNCATE TABLE {things.database}.things")
        things.store = FolderStore(tmp_path / f"{what}-{number}")
        things.insert(1)
        things.insert(2)
        stopping: dict[str, Any] = {"store": Fatal(things.store, number)}
        if what == "drop":
            stopping = {"executor": StoppingExecutor(things.client, number)}
        try:
            things.run(**stopping)
        except Ended:
            assert set(things.seqs()) | set(things.vouched()) == {1, 2}
            if things.vouched():
                things.insert(3)  # so that the next one adds to what this one left
            wanted = sorted({*things.seqs(), *things.vouched()})
            things.run()
            assert (things.seqs(), things.archived()) == ([], wanted)
            return True
        assert (things.seqs(), things.archived()) == ([], [1, 2])
        return False

    assert sum(itertools.takewhile(bool, (stops("drop", n) for n in range(10)))) == 2
    assert sum(itertools.takewhile(bool, (stops("call", n) for n in range(100)))) > 10


# -- the command --


class Made(Killable):
    """A data folder, and a database with rows of long ago."""

    def rows(self) -> int:
        return int(self.asked("SELECT count() AS n FROM market_data")[0]["n"])


def test_a_killed_command_is_completed_by_the_next(
    embedded: None, place: DatabasePlace, tmp_path: pathlib.Path
) -> None:
    """kill -9 behind the archive and amid the drops: the plan shows, with its receipts, what is left; done once."""
    made = Made(tmp_path, place, SETTINGS)
    made.done("migrate", "up")
    for number in range(2):
        made.ingested("market_data", {"ts_local": FIRST_NS + number, "symbol": "BTCUSDT"})
    apply = ("retention", "apply", "market_data")

    def shown() -> list[str]:
        """The plan, which is what apply shows without --yes."""
        actions = json.loads(made.done("retention", "plan", "market_data", "--json", step="never"))["actions"]
        assert json.loads(made.done(*apply, "--json", step="never"))["actions"] == actions
        return [action["kind"] for action in actions]

    assert shown() == ["archive", "drop"]
    made.killed(*apply, "--yes", step="after archive")
    assert shown() == ["verify_archive", "drop"]
    made.killed(*apply, "--yes", step="after drop")
    with (tmp_path / "retention.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = made.run(*apply, "--yes", step="never")
    assert (refused.returncode, "another run of retention" in refused.stderr) == (1, True)
    assert made.rows() == 1
    outcomes = json.loads(made.done(*apply, "--yes", "--json", step="never"))["outcomes"]
    assert [(one["kind"], one["state"]) for one in outcomes] == [("archive", "done"), ("drop", "done")]
    assert made.rows() == 0
    assert '"rows": 2' in made.run("archive", "ls", "--json").stdout


def test_a_run_that_finds_rows_waiting_says_where_that_is_told(
    embedded: None, place: DatabasePlace, tmp_path: pathlib.Path
) -> None:
    """Rows that were written a moment ago are not due: apply does nothing, fails nothing, and names the plan."""
    made = Made(tmp_path, place, SETTINGS)
    made.done("migrate", "up")
    made.ingested("market_data", {"ts_local": FIRST_NS, "symbol": "BTCUSDT"})
    (waits,) = json.loads(made.run("retention", "plan", "market_data", "--json").stdout)["actions"]
    assert waits["kind"] == "wait"
    done = made.run("retention", "apply", "market_data", "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert '"recorder retention plan"' in done.stderr
    assert made.rows() == 1
