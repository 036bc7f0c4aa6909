"""`recorder retention plan` on real tables: the facts it reads, what it says of them, and that it changes nothing."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend, Place

from retention.due import Kind, due
from retention.facts import TableFacts
from retention.live_facts import read_facts, server_time_ns
from retention.policy import DAY_NS, RetentionPolicy
from schemas.executor import ClientExecutor
from schemas.live import read_tables
from schemas.policy import Durability, Overflow, Partition, TablePolicy

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
DAY = TablePolicy(
    durability=Durability.MEMORY,
    overflow=Overflow.DROP_OLDEST,
    partition=Partition.DAY,
    order_by=("ts_local",),
    keep_days=7,
)
FIRST_NS = 1_723_075_200_000_000_000  # 2024-08-08
EARLY_NS = FIRST_NS + 5


# -- facts --


def _table(client: Client, database: str, key: str = "toYYYYMMDD(ts_local)", ttl: str = "") -> None:
    client.command(
        f"CREATE TABLE {database}.things (ts_local DateTime64(9, 'UTC'), n UInt8) ENGINE = MergeTree "
        f"PARTITION BY {key} ORDER BY ts_local {ttl}"
    )
    client.command(f"SYSTEM STOP MERGES {database}.things")


def _insert(client: Client, database: str, *times_ns: int) -> None:
    rows = ", ".join(f"(fromUnixTimestamp64Nano({at_ns}, 'UTC'), {n})" for n, at_ns in enumerate(times_ns))
    client.command(f"INSERT INTO {database}.things VALUES {rows}")


def _read(client: Client, database: str, policy: TablePolicy = DAY) -> TableFacts:
    executor = ClientExecutor(client)
    (facts,) = read_facts(executor, database, [(read_tables(executor, database)["things"], policy)])
    return facts


def test_facts_are_those_of_the_rows_and_parts_that_are_there(client: Client, database: str) -> None:
    """Per partition: rows, parts, bytes, and first and last time to the nanosecond; dropped parts do not count."""
    _table(client, database, ttl="TTL toDateTime(ts_local) + toIntervalDay(36500)")
    before_ns = server_time_ns(ClientExecutor(client))
    _insert(client, database, EARLY_NS, EARLY_NS + 1, FIRST_NS + DAY_NS - 1, FIRST_NS + DAY_NS)
    _insert(client, database, FIRST_NS)
    _insert(client, database, FIRST_NS + 9 * DAY_NS)
    client.command(f"ALTER TABLE {database}.things DROP PARTITION 20240817")
    after_ns = server_time_ns(ClientExecutor(client))
    facts = _read(client, database)
    assert facts.ttl == "toDateTime(ts_local) + toIntervalDay(36500)"
    assert facts.by_time
    first, second = facts.partitions
    assert (first.id, first.rows, first.parts) == ("20240808", 4, 2)
    assert (first.min_ns, first.max_ns) == (FIRST_NS, FIRST_NS + DAY_NS - 1)
    assert (second.id, second.rows, second.parts) == ("20240809", 1, 1)
    assert second.min_ns == second.max_ns == FIRST_NS + DAY_NS
    for part in facts.partitions:
        on_disk = client.query(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {db:String} "
            "AND partition_id = {id:String}",
            {"db": database, "id": part.id},
        ).result_rows[0][0]
        assert part.bytes_on_disk == on_disk > 0
        assert before_ns <= part.modified_ns < after_ns + 2_000_000_000


def test_times_are_read_from_the_index_of_parts(client: Client, database: str) -> None:
    """Asking for the times of partitions reads a row a part, not the table."""
    _table(client, database)
    client.command(
        f"INSERT INTO {database}.things "
        f"SELECT fromUnixTimestamp64Nano({FIRST_NS} + number, 'UTC'), 1 FROM numbers(50000)"
    )
    plan = client.query(
        f"EXPLAIN SELECT _partition_id, count(), min(ts_local), max(ts_local) FROM {database}.things "
        "GROUP BY _partition_id"
    ).result_rows
    assert "_minmax_count_projection" in str(plan)
    assert _read(client, database).partitions[0].max_ns == FIRST_NS + 49_999


def test_deleted_rows_do_not_count(client: Client, database: str) -> None:
    """Rows that were deleted are neither counted nor looked at for their times."""
    _table(client, database)
    _insert(client, database, EARLY_NS, EARLY_NS + 1)
    client.command(f"SYSTEM START MERGES {database}.things")  # which also delete
    client.command(f"DELETE FROM {database}.things WHERE n = 1")
    (part,) = _read(client, database).partitions
    assert (part.rows, part.max_ns) == (1, EARLY_NS)


def test_partitions_of_time_and_group_are_known_by_their_time(client: Client, database: str) -> None:
    """A partition key with a group behind the time makes partitions that are dropped by their time."""
    _table(client, database, key="(toYYYYMMDD(ts_local), n)")
    _insert(client, database, EARLY_NS, EARLY_NS)
    facts = _read(client, database)
    assert [part.id for part in facts.partitions] == ["20240808-0", "20240808-1"]
    policy = RetentionPolicy(table="things", partition=Partition.DAY, keep_days=7)
    kinds = [action.kind for action in due(policy, facts, now_ns=time.time_ns() + DAY_NS)]
    assert kinds == [Kind.DROP, Kind.DROP]


@pytest.mark.parametrize("key", ["toYYYYMM(ts_local)", "n", "tuple()"])
def test_a_table_that_is_cut_otherwise_is_only_reported(client: Client, database: str, key: str) -> None:
    """Where the partition key is not the policy's, nothing is dropped, however old its rows are."""
    _table(client, database, key=key)
    _insert(client, database, EARLY_NS)
    facts = _read(client, database)
    assert not facts.by_time
    policy = RetentionPolicy(table="things", partition=Partition.DAY, keep_days=7)
    assert [action.kind for action in due(policy, facts, now_ns=time.time_ns() + DAY_NS)] == [Kind.REPORT]


# -- the command --


@dataclass(frozen=True)
class Made:
    """A data folder, and a database with rows of yesterday and today."""

    data_dir: pathlib.Path
    place: Place
    today_ns: int

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recorder", "--data-dir", str(self.data_dir), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.data_dir,
            env=ENVIRONMENT | self.place.variables | variables,
        )

    def plan(self, *arguments: str, days: float = 0, **variables: str) -> Any:
        at_ns = self.today_ns + int(days * DAY_NS)
        done = self.run("retention", "plan", *arguments, "--at", str(at_ns), "--json", **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    data_dir = tmp_path_factory.mktemp("made")
    with backend.place(data_dir) as place:
        made = Made(data_dir, place, time.time_ns() // DAY_NS * DAY_NS)
        assert made.run("migrate", "up").returncode == 0
        rows = [
            {"ts_local": made.today_ns - age_ns, "symbol": "BTCUSDT"} for age_ns in (0, DAY_NS, DAY_NS // 2)
        ]
        (data_dir / "rows.ndjson").write_text("\n".join(map(json.dumps, rows)))
        done = made.run("ingest", "--table", "market_data", str(data_dir / "rows.ndjson"))
        assert done.returncode == 0, done.stderr
        yield made


def _kinds(answer: Any, table: str = "market_data") -> list[tuple[str, str]]:
    return [(one["kind"], one["partition"]) for one in answer["actions"] if one["table"] == table]


def _day(made: Made, days: int) -> str:
    return time.strftime("%Y%m%d", time.gmtime(made.today_ns / 1e9 + days * 86_400))


def test_what_expires_is_dropped_in_time(made: Made) -> None:
    """When the newest row of a partition is older than the policy says, and not before; sums are of what is there."""
    before = made.plan(days=89.25)
    assert _kinds(before) == []
    answer = made.plan("market_data", days=89.75)
    assert _kinds(answer) == [("drop", _day(made, -1))]
    (action,) = answer["actions"]
    assert action["rows"] == 2
    assert "90 days" in action["why"]
    table = next(one for one in before["tables"] if one["table"] == "market_data")
    assert (table["partitions"], table["rows"], table["partitions_at_full_retention"]) == (2, 3, 91)
    assert before["summary"]["partitions"] == sum(one["partitions"] for one in before["tables"])
    assert before["summary"]["tables_kept_for_ever"] == 3
    assert (before["ttl_enabled"], before["missing_tables"]) == (True, [])


def test_settings_are_what_the_plan_goes_by(made: Made) -> None:
    """Another `keep_days` means another TTL; an archive and bars mean none, and that they come first."""
    keep = {"RECORDER_TABLES__MARKET_DATA__KEEP_DAYS": "5"}
    assert _kinds(made.plan(days=3, **keep)) == [("modify_ttl", "")]
    proof = keep | {
        "RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "2",
        "RECORDER_TABLES__MARKET_DATA__BARS": "true",
    }
    answer = made.plan("market_data", days=4.75, **proof)
    assert _kinds(answer) == [
        ("drop_ttl", ""),
        *((kind, _day(made, -1)) for kind in ("build_bars", "archive", "drop")),
        *((kind, _day(made, 0)) for kind in ("build_bars", "archive")),
    ]
    assert [one["after"] for one in answer["actions"] if one["kind"] == "drop"] == [["build_bars", "archive"]]


def test_a_partition_that_was_just_written_waits(made: Made) -> None:
    """Within an hour of its last write nothing is done to it, whatever is due."""
    now_ns = min(time.time_ns(), made.today_ns + DAY_NS - 1)  # a midnight since then would close today too
    answer = made.plan(days=(now_ns - made.today_ns) / DAY_NS, RECORDER_TABLES__MARKET_DATA__BARS="true")
    assert _kinds(answer) == [("drop_ttl", ""), ("wait", _day(made, -1))]


def test_people_get_a_table_and_what_it_does_not_say(made: Made) -> None:
    """Actions in a table, counts and reservations beside it."""
    done = made.run("retention", "plan", "market_data", "--at", str(made.today_ns + 100 * DAY_NS))
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines() if "drop" in line] == [
        ["market_data", _day(made, -1), "2"],
        ["market_data", _day(made, 0), "1"],
    ]
    assert "1 table: 2 partitions" in done.stderr
    assert "at full retention at most 91 partitions" in done.stderr
    assert "nothing of this was done" in done.stderr


def test_a_plan_changes_nothing(made: Made) -> None:
    """Rows and TTL are after a plan, however much is due, what they were."""
    sql = (
        "SELECT (SELECT count() FROM market_data) AS n, engine_full LIKE '%toIntervalDay(90)%' AS ttl "
        "FROM system.tables WHERE database = currentDatabase() AND name = 'market_data'"
    )
    made.plan(days=1_000, RECORDER_TABLES__MARKET_DATA__KEEP_DAYS="1")
    assert json.loads(made.run("query", "--json", sql).stdout) == [{"n": 3, "ttl": 1}]


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["market_dat"], {}, 'no loaded pack has this table; did you mean "market_data"?'),
        (["--at", "soon"], {}, "'soon' is no time"),
        (
            [],
            {"RECORDER_TABLES__MARKET_DATA__ARCHIVE_AFTER_DAYS": "91"},
            "archive_after_days 91 must not be above keep_days 90",
        ),
    ],
)
def test_wrong_use_is_refused(
    tmp_path: pathlib.Path, arguments: list[str], variables: dict[str, str], words: str
) -> None:
    """Exit code 2 and a line that says what to do, before any database is looked for."""
    made = Made(tmp_path, Place(f"chdb://{tmp_path / 'db'}", "default"), FIRST_NS)
    done = made.run("retention", "plan", *arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_ttl_that_was_switched_off_means_that_nothing_expires(place: Place, tmp_path: pathlib.Path) -> None:
    """In a database without TTL, as `ingest` makes it, no rows are due and no TTL is to be set; the plan says so."""
    made = Made(tmp_path, place, FIRST_NS)
    (tmp_path / "rows.ndjson").write_text(json.dumps({"ts_local": EARLY_NS, "symbol": "BTCUSDT"}))
    assert made.run("ingest", "--table", "market_data", str(tmp_path / "rows.ndjson")).returncode == 0
    done = made.run("retention", "plan", "--at", str(FIRST_NS + 3_000 * DAY_NS))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing is due" in done.stderr
    assert "rows are kept until someone deletes them" in done.stderr


def test_a_database_that_is_not_there(embedded: None, tmp_path: pathlib.Path) -> None:
    """It is not made by asking; the error says how to make one."""
    made = Made(tmp_path, Place(f"chdb://{tmp_path / 'db'}", "default"), FIRST_NS)
    done = made.run("retention", "plan")
    assert done.returncode == 1
    assert 'make one with "recorder demo" or "recorder migrate up"' in done.stderr
    assert list(tmp_path.iterdir()) == []
