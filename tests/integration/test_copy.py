"""Copies between two databases of one engine: what gets in, what is told, what is refused."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from harness.backends import Backend
from harness.copies import DAY_ROWS, FIRST_NS, STEP_NS, Pair, pair_on

from recorder.copying import CannotCopy, CopyStopped, Outcome, Span, State, Verified, blocks, compare, look
from recorder.packs import load_packs
from schemas.executor import ClientExecutor
from schemas.manager import Manager


@pytest.fixture
def pair(backend: Backend) -> Iterator[Pair]:
    with pair_on(backend) as pair:
        pair.make()
        yield pair


def counts(outcomes: list[Outcome], *names: str) -> list[tuple[object, ...]]:
    return [tuple(getattr(one, name) for name in names) for one in outcomes]


def test_every_value_of_every_type_gets_in_once(pair: Pair) -> None:
    """A copy has, column by column, what the source has; a second one sends nothing and reads no row to send."""
    pair.fill(0, 4_000)
    outcomes = pair.copy()
    assert counts(outcomes, "partition", "state", "rows", "copied") == [
        ("20240808", State.COPIED, DAY_ROWS, DAY_ROWS),
        ("20240809", State.COPIED, 4_000 - DAY_ROWS, 4_000 - DAY_ROWS),
    ]
    assert pair.content(pair.target) == pair.content(pair.source)
    pair.source.asked.clear()
    assert counts(pair.copy(), "state", "copied") == [(State.THERE, 0)] * 2
    pair.verified = Verified()
    assert counts(pair.copy(), "state", "copied") == [(State.THERE, 0)] * 2
    assert pair.source.asked == []


def test_only_rows_that_lack_are_sent(pair: Pair) -> None:
    """Of a partition that the target has in part, each row that lacks gets in, and no other again."""
    pair.fill(0, 2_500)
    for start in range(0, 2_500, 500):
        pair.fill(start, start + 150, side=pair.target)
    assert counts(pair.copy(), "rows", "copied", "extra") == [(2_500, 1_750, 0)]
    assert pair.content(pair.target) == pair.content(pair.source)


def test_times_cut_within_a_partition(pair: Pair) -> None:
    """Rows from `since` on and before `until` are copied, to the row; the rest is neither copied nor missed."""
    pair.fill(0, 2_000)
    pair.fill(1_900, 2_000, side=pair.target)
    span = Span(FIRST_NS + 25 * STEP_NS, FIRST_NS + 250 * STEP_NS)
    assert counts(pair.copy(span=span), "rows", "copied", "extra") == [(900, 900, 0)]
    assert pair.content(pair.target) == pair.content(
        pair.source, "_seq >= 100 AND _seq < 1000 OR _seq >= 1900"
    )
    assert counts(pair.copy(), "rows", "copied") == [(2_000, 1_000)]


def test_many_rows_of_one_moment(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that no time tells apart go in several blocks, and are compared in several passes; each is in once."""
    monkeypatch.setattr(blocks.bounded, "__defaults__", (500, 1 << 20))
    monkeypatch.setattr(compare, "BUCKET_ROWS", 700)
    pair.fill(0, 4)
    pair.command(f"INSERT INTO {pair.source.database}.trades SELECT t.* EXCEPT _seq, n.number AS _seq FROM "
                 f"(SELECT * FROM {pair.source.database}.trades LIMIT 1) AS t, numbers(10, 3000) AS n")  # fmt: skip
    pair.command(f"INSERT INTO {pair.target.database}.trades SELECT * FROM {pair.source.database}.trades "
                 "WHERE _seq % 5 = 0")  # fmt: skip
    (outcome,) = pair.copy()
    assert (outcome.rows, outcome.copied) == (3_004, 2_403)
    assert pair.content(pair.target) == pair.content(pair.source)


def test_a_row_with_another_content_is_told_and_let_be(pair: Pair) -> None:
    """One identity, one column another: the partition is faulty and names it; the others are copied whole."""
    pair.fill(0, 4_000)
    pair.fill(100, 101, side=pair.target)
    pair.command(
        f"ALTER TABLE {pair.target.database}.trades UPDATE rate = 7 WHERE _seq = 100 SETTINGS mutations_sync = 2"
    )
    first, second = pair.copy()
    assert (first.state, first.differing, second.state) == (State.FAULTY, 1, State.COPIED)
    assert "1 rows have another content" in first.problem
    assert "_seq 100" in first.problem
    assert first.copied == DAY_ROWS - 1
    assert pair.content(pair.target, "_seq = 100") != pair.content(pair.source, "_seq = 100")
    assert pair.content(pair.target, "_seq != 100") == pair.content(pair.source, "_seq != 100")
    assert [one.state for one in pair.copy()] == [State.FAULTY, State.THERE]


def test_a_change_of_any_column_is_told(pair: Pair) -> None:
    """Rows with one column each that has another value in the target, or a default for NULL: as many are told."""
    changes = {
        "ts_local": "ts_local + toIntervalNanosecond(1)", "ts_venue": "toDateTime64(0, 9, 'UTC')",
        "symbol": "'other'", "note": "''", "payload": "unhex('00FF81')", "price": "price + toDecimal128('1e-18', 18)",
        "size": "ifNull(size, 0) + 1", "bids": "arrayPushBack(bids, 0)", "labels": "mapUpdate(labels, map('k', 'v'))",
        "live": "NOT live", "kind": "if(kind = 'buy', 'sell', 'buy')", "rate": "if(rate IS NULL, 0, NULL)",
        "`all`": "`all` + 1",
    }  # fmt: skip
    pair.fill(0, 100)
    columns = ", ".join(
        f"if(_seq = {12 * (place % 8) + place // 8}, {change}, {name}) AS {name}_"
        for place, (name, change) in enumerate(changes.items())
    ).replace("`all`_", "all_")  # fmt: skip
    pair.command(
        f"INSERT INTO {pair.target.database}.trades SELECT {columns}, _log, _seq FROM {pair.source.database}.trades"
    )
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.copied, outcome.differing) == (State.FAULTY, 0, len(changes))


def test_what_only_the_target_has_is_told_and_stays(pair: Pair) -> None:
    """Rows of another recorder between those that are copied, before and behind them: counted, and still there."""
    pair.fill(1_000, 2_000)
    pair.fill(0, 10, side=pair.target)
    pair.fill(1_500, 1_503, side=pair.target)
    pair.fill(2_500, 2_510, side=pair.target)
    pair.command(f"ALTER TABLE {pair.source.database}.trades DELETE WHERE _seq IN (1500, 1502) "
                 "SETTINGS mutations_sync = 2")  # fmt: skip
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.copied, outcome.extra) == (State.COPIED, 997, 22)
    assert len(pair.content(pair.target)) == 1_020


def test_times_that_only_the_target_has_are_counted_and_not_read(pair: Pair) -> None:
    """Rows before and behind all of the source are extra; none of them is read, however many they are."""
    pair.fill(1_000, 2_000)
    pair.copy()
    pair.fill(0, 900, side=pair.target)
    pair.fill(2_100, 2_200, side=pair.target)
    pair.verified = Verified()
    pair.target.asked.clear()
    assert counts(pair.copy(), "state", "copied", "extra") == [(State.THERE, 0, 1_000)]
    assert pair.target.asked == []


def test_rows_there_twice_are_told(pair: Pair) -> None:
    """An identity that the target has twice is an error; one that the source has twice gets in once, and is told."""
    pair.fill(0, 100)
    pair.fill(40, 42)
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.copied, outcome.source_doubled) == (State.COPIED, 100, 2)
    pair.fill(7, 8, side=pair.target)
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.doubled) == (State.FAULTY, 1)
    assert "more than once" in outcome.problem


def test_a_partition_that_grows_is_copied_up_to_what_it_had(pair: Pair) -> None:
    """Rows that come to the source after it was read are copied in another round; those of a source that never rests
    are left for the next run, and what it had before is in."""
    pair.fill(0, 1_000)
    numbers = iter(range(1_000, 2_500, 10))

    def grow(sql: str) -> None:
        if "ORDER BY" in sql and (number := next(numbers)) < most:
            pair.fill(number, number + 10)

    pair.source.after = grow
    most = 1_020
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.late) == (State.COPIED, 0)
    assert pair.content(pair.target) == pair.content(pair.source)
    most, number = 10**9, next(numbers)
    pair.fill(number, number + 10)
    (outcome,) = pair.copy()
    assert outcome.state is State.COPIED
    assert outcome.late == 10
    pair.source.after = lambda sql: None
    assert [one.late for one in pair.copy()] == [0]
    assert pair.content(pair.target) == pair.content(pair.source)


def test_what_the_target_would_delete_at_once_is_not_copied(pair: Pair) -> None:
    """Rows older than the target's TTL are told before they are sent; so are rows that something deletes again."""
    pair.fill(0, 1_000)
    pair.command(
        f"ALTER TABLE {pair.target.database}.trades MODIFY TTL toDateTime(ts_local) + toIntervalDay(30)"
    )
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.copied) == (State.FAULTY, 0)
    assert "1000 rows are older" in outcome.problem
    assert "migrate up --no-ttl" in outcome.problem
    pair.command(f"ALTER TABLE {pair.target.database}.trades REMOVE TTL")

    def delete(sql: str) -> None:
        if "_copy_slice" in sql:
            pair.command(f"TRUNCATE TABLE {pair.target.database}.trades")

    pair.target.before = delete
    (outcome,) = pair.copy()
    assert outcome.state is State.FAULTY
    assert "after they were inserted" in outcome.problem


def test_what_the_target_still_has_is_no_error_however_old(pair: Pair) -> None:
    """Rows older than the target's TTL that it has all the same, as those of a part that expires as a whole, are
    verified; and one that lacks among them is told."""
    pair.fill(0, 1_000)
    pair.command(f"SYSTEM STOP TTL MERGES {pair.target.database}.trades")
    pair.copy()
    pair.command(
        f"ALTER TABLE {pair.target.database}.trades MODIFY TTL toDateTime(ts_local) + toIntervalDay(30) "
        "SETTINGS materialize_ttl_after_modify = 0"
    )
    pair.verified = Verified()
    assert counts(pair.copy(), "state", "rows", "problem") == [(State.THERE, 1_000, "")]
    pair.fill(1_000, 1_001)
    (outcome,) = pair.copy()
    assert (outcome.state, outcome.copied) == (State.FAULTY, 0)
    assert "older than the target keeps them" in outcome.problem


def test_brackets_in_names_of_an_enum(pair: Pair) -> None:
    """A nullable type is taken out of its brackets whatever the names in it are: NULL is not the default."""
    pair.make(columns="ts_local DateTime64(9, 'UTC'), symbol String, kind Nullable(Enum8('a (b' = 0, 'c)' = 1)), "
                      "_log UInt64, _seq UInt64", table="enums")  # fmt: skip
    pair.fill(0, 4)
    pair.command(f"INSERT INTO {pair.source.database}.enums "
                 "SELECT ts_local, symbol, if(_seq = 0, NULL, 'c)'), _log, _seq "
                 f"FROM {pair.source.database}.trades")  # fmt: skip
    plan = pair.plan("enums")
    assert counts(pair.copy(plan=plan), "copied", "problem") == [(4, "")]
    pair.command(f"TRUNCATE TABLE {pair.target.database}.enums")
    pair.command(f"INSERT INTO {pair.target.database}.enums SELECT * REPLACE (ifNull(kind, 'a (b') AS kind) "
                 f"FROM {pair.source.database}.enums")  # fmt: skip
    assert counts(pair.copy(plan=plan), "copied", "differing") == [(0, 1)]


def test_a_table_that_goes_meanwhile_ends_the_copy(pair: Pair) -> None:
    """The target's table is dropped after the plan: the error names it and says how to go on."""
    pair.fill(0, 1_000)
    plan = pair.plan()

    def drop(sql: str) -> None:
        if "ORDER BY" in sql:
            pair.command(f"DROP TABLE {pair.target.database}.trades SYNC")

    pair.source.before = drop
    with pytest.raises(CopyStopped, match=r"trades: the target refuses rows: .*run the same command again"):
        pair.copy(plan=plan)


def test_an_update_laid_over_a_verified_partition_is_seen(pair: Pair) -> None:
    """A lightweight update changes no part, and is seen all the same."""
    pair.make(table="updated", end="SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1")
    pair.fill(0, 100)
    pair.command(f"INSERT INTO {pair.source.database}.updated SELECT * FROM {pair.source.database}.trades")
    assert counts(pair.copy(plan=pair.plan("updated")), "copied") == [(100,)]
    pair.command(f"UPDATE {pair.target.database}.updated SET rate = 7 WHERE _seq = 3 "
                 "SETTINGS allow_experimental_lightweight_update = 1")  # fmt: skip
    assert counts(pair.copy(plan=pair.plan("updated")), "state", "differing") == [(State.FAULTY, 1)]


def test_a_verified_partition_is_read_again_when_it_changed(pair: Pair, tmp_path: pathlib.Path) -> None:
    """What is remembered outlives the process and holds for parts that are the same: a row more or another content, on
    either side, is seen. A broken file is as none."""
    path = tmp_path / "verified.json"
    pair.fill(0, 1_000)
    pair.verified = Verified(path)
    pair.copy()
    pair.verified = Verified(path)
    pair.fill(1_000, 1_010)
    assert counts(pair.copy(), "copied") == [(10,)]
    pair.command(
        f"ALTER TABLE {pair.target.database}.trades UPDATE price = 1 WHERE _seq = 3 SETTINGS mutations_sync = 2"
    )
    pair.verified = Verified(path)
    assert counts(pair.copy(), "state", "differing") == [(State.FAULTY, 1)]
    path.write_bytes(b"{")
    pair.verified = Verified(path)
    assert counts(pair.copy(), "state", "differing") == [(State.FAULTY, 1)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE {target}.trades SYNC", "no table trades; make it first"),
        ("DROP TABLE {source}.trades SYNC", "no table trades to copy"),
        ("ALTER TABLE {target}.trades DROP COLUMN rate", "rate is Nullable.Float64. there and none here"),
        ("ALTER TABLE {target}.trades ADD COLUMN more UInt8", "more is none there and UInt8 here"),
        ("ALTER TABLE {source}.trades DROP COLUMN _seq", "trades has no column _seq"),
    ],
)
def test_tables_that_are_not_alike_are_refused(pair: Pair, change: str, told: str) -> None:
    """A missing table or column, another type, no identity: named, with the side, and nothing is copied."""
    pair.fill(0, 10)
    pair.command(change.format(source=pair.source.database, target=pair.target.database))
    with pytest.raises(CannotCopy, match=told):
        pair.copy()


def test_a_database_is_not_copied_onto_itself(pair: Pair) -> None:
    """One database by two names is refused."""
    pair.target.database = pair.source.database
    with pytest.raises(CannotCopy, match="same database"):
        pair.copy()


def test_migrations_must_be_the_same(backend: Backend) -> None:
    """A target that lacks a migration is named with the command that brings it up; brought up, the packs' tables are
    copied but for those that speak of their own database."""
    packs = load_packs(("core",))
    with pair_on(backend) as pair:
        for side in (pair.source, pair.target):
            Manager(ClientExecutor(pair.client), packs, side.database, ttl=False).up()
        history = f"{pair.target.database}.recorder_migrations"
        last = max(migration.number for migration in packs[0].migrations)
        pair.command(f"DELETE FROM {history} WHERE number = {last}")
        with pytest.raises(
            CannotCopy, match=f"at {last:04} in source and at {last - 1:04} in target; bring target up"
        ):
            look(pair.source, pair.target, packs, (), Span())
        Manager(ClientExecutor(pair.client), packs, pair.target.database, ttl=False).up()
        names = {table.name for table in look(pair.source, pair.target, packs, (), Span()).tables}
        assert {"market_data", "fills", "orders", "recorder_gaps", "recorder_runs", "dead_letters"} <= names
        assert not names & {"metrics_timeseries", "recorder_migrations", "recorder_settings"}
        with pytest.raises(CannotCopy, match="recorder_migrations has no column _log"):
            look(pair.source, pair.target, packs, ("recorder_migrations",), Span())
