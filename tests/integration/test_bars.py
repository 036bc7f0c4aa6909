"""Laws of bars: what counts, how long a quote holds, and that late rows end where all at once would have."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import Backend
from harness.bars_desk import ONE_M, ONE_S, Desk, ns
from harness.bars_plain import HOUR_NS, Said, differences, plain_bars
from harness.waiting import PATIENCE_S
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.bars.errors import CannotBuild
from recorder.bars.sql import insert_hour
from recorder.bars.survey import Scope, require_tables, survey
from recorder.bars.windows import ALL_BARS
from schemas.core.flags import MarketFlag as F

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

S_NS = 10**9
FEED = ("binance.spot", "BTCUSDT")


def trade(at: int, px: float = 100.0, qty: float = 1.0, **more: Any) -> Said:
    return Said(*FEED, at, (), trade=(px, qty), **more)


def quote(at: int, bid: float | None, ask: float | None) -> Said:
    return Said(*FEED, at, (), quote=(bid, ask))


def placed(said: list[Said]) -> list[Said]:
    """With the place that recording in this order gives."""
    return [one._replace(place=(one.at, number)) for number, one in enumerate(said)]


@pytest.fixture(scope="module")
def tables(backend: Backend) -> Iterator[Desk]:
    """A database with the tables, for all tests of this file: making them takes longer than most tests."""
    with backend.fresh_database() as name:
        yield Desk(backend.client, name)


@pytest.fixture
def desk(tables: Desk) -> Desk:
    """The same without a row."""
    tables.empty("market_data", *(bars.stored for bars in ALL_BARS))
    return tables


def test_a_bar_is_of_the_trades_of_its_window_in_the_order_of_venue_time(desk: Desk) -> None:
    """Open and close are the first and last by venue time, ties by local time and identity, however they came in."""
    at = ns("12:00:00")
    desk.put([
        trade(at + 900, 103.0, 1.0), trade(at + 10, 101.0, 2.0), trade(at + 10, 99.0, 1.0), trade(at + S_NS, 50.0),
    ])  # fmt: skip
    desk.build()
    bar = desk.bars()[(*FEED, at)]
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (101.0, 103.0, 99.0, 103.0)
    assert (bar["volume"], bar["notional"], bar["vwap"], bar["trade_count"]) == (4.0, 404.0, 101.0, 3)
    assert len(desk.bars()) == 2


def test_a_quote_holds_until_the_next_and_weighs_in_every_window_that_has_rows(desk: Desk) -> None:
    """A spread of 1 from 0.5 s on, and of 3 from 3.25 s on: windows weigh by time, and one without rows has no bar."""
    at = ns("12:00:00")
    desk.put([
        quote(at + S_NS // 2, 10.0, 11.0), trade(at + S_NS + 1), quote(at + 3 * S_NS + S_NS // 4, 10.0, 13.0),
    ])  # fmt: skip
    desk.build()
    bars = {begin - at: bar for (_, _, begin), bar in desk.bars().items()}
    assert sorted(bars) == [0, S_NS, 3 * S_NS]
    assert (bars[0]["spread_mean"], bars[0]["quoted_ns"]) == (1.0, S_NS // 2)
    assert (bars[S_NS]["spread_mean"], bars[S_NS]["quoted_ns"], bars[S_NS]["quote_count"]) == (1.0, S_NS, 0)
    assert bars[3 * S_NS]["spread_mean"] == pytest.approx(0.25 * 1 + 0.75 * 3)
    desk.build(ONE_M)
    (minute,) = desk.bars(ONE_M).values()
    assert minute["spread_mean"] == pytest.approx((2.75 * 1 + 56.75 * 3) / 59.5)
    assert minute["quoted_ns"] == 59_500_000_000


def test_quotes_follow_each_other_by_venue_time(desk: Desk) -> None:
    """One that was received late, by a slower path, holds from its venue time on until that of the next."""
    at = ns("12:00:00")
    desk.put([quote(at + S_NS // 2, 10.0, 13.0)])
    desk.put([quote(at, 10.0, 11.0)], local_behind_ns=-2 * S_NS)
    desk.build()
    (bar,) = desk.bars().values()
    assert (bar["spread_mean"], bar["quoted_ns"]) == (2.0, S_NS)


def test_a_quote_holds_over_the_full_hour_and_for_an_hour_at_most(desk: Desk) -> None:
    """A bar of the next hour has the quote of the one before; an hour after it nobody knows the spread."""
    at = ns("12:59:59")
    late = at + HOUR_NS
    desk.put([quote(at, 10.0, 12.0), trade(at + 5 * S_NS), trade(late - 1), trade(late + S_NS // 2)])
    desk.build()
    bars = {begin - at: (bar["spread_mean"], bar["quoted_ns"]) for (_, _, begin), bar in desk.bars().items()}
    assert bars == {
        0: (2.0, S_NS), 5 * S_NS: (2.0, S_NS), HOUR_NS - S_NS: (2.0, S_NS), HOUR_NS: (None, 0),
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [(12.0, 11.0), (11.0, 11.0), (None, 11.0), (11.0, None), (None, None)])
def test_a_crossed_or_one_sided_quote_ends_the_spread_before_and_has_none(
    desk: Desk, wrong: tuple[float | None, float | None]
) -> None:
    """Its time does not count in the mean; it counts as a quote."""
    at = ns("12:00:00")
    desk.put([quote(at, 10.0, 12.0), quote(at + S_NS // 4, *wrong), quote(at + S_NS // 2, 10.0, 11.0)])
    desk.build()
    (bar,) = desk.bars().values()
    assert (bar["quote_count"], bar["quoted_ns"]) == (3, 3 * S_NS // 4)
    assert bar["spread_mean"] == pytest.approx((2.0 + 2 * 1.0) / 3)


def test_an_execution_counts_once_where_aggregates_were_recorded_too(desk: Desk) -> None:
    """Single trades in an hour, or in one beside it, leave its aggregates out; elsewhere aggregates count."""
    noon, far = ns("12:00:00"), ns("18:00:00")
    desk.put(
        [
            trade(noon - 1, qty=1.0),
            trade(noon, qty=5.0, aggregated=True),
            trade(far, qty=3.0, aggregated=True),
        ]
    )
    desk.build()
    volumes = {begin: bar["volume"] for (_, _, begin), bar in desk.bars().items()}
    assert volumes == {noon - S_NS: 1.0, noon: 0.0, far: 3.0}
    said = f"SELECT ts, aggregated FROM {desk.database}.{ONE_S.name} WHERE aggregated"
    assert len(desk.executor.query(said)) == 1
    desk.put([trade(far + HOUR_NS, qty=2.0)])  # singles beside it came late: its aggregates count no more
    desk.build()
    assert desk.bars()[(*FEED, far)]["volume"] == 0.0
    assert desk.verify().faults == ()


def test_trades_off_the_book_and_rows_of_a_timer_make_no_bar(desk: Desk) -> None:
    """An insurance fund's trade is no market price, and a sample repeats what is known."""
    at = ns("12:00:00")
    desk.put([trade(at, 1.0)], flags=int(F.OFF_BOOK))
    sample = Said(*FEED, at, ())
    desk.put([sample], flags=int(F.SAMPLED))
    assert desk.build().new == 0
    desk.put([trade(at, 100.0)])
    desk.build()
    (bar,) = desk.bars().values()
    assert (bar["low"], bar["trade_count"], bar["quote_count"], bar["rows"]) == (100.0, 1, 0, 1)


def test_local_time_stands_in_where_the_venue_sends_none(desk: Desk) -> None:
    """With a local clock behind, a row lies in the window of its venue time, and without one in that of its local."""
    at = ns("12:00:00")
    desk.put([trade(at)], local_behind_ns=3 * S_NS)
    desk.put([quote(at, 1.0, 2.0)], local_behind_ns=3 * S_NS, venue_time=False)
    desk.build()
    assert {begin - at: bar["trade_count"] for (_, _, begin), bar in desk.bars().items()} == {
        0: 1,
        -3 * S_NS: 0,
    }


def test_open_windows_wait_until_they_are_closed(desk: Desk, client: Client) -> None:
    """A bar is there when its window ended `delay_s` ago, by the server's clock, and not before."""
    now = int(desk.executor.query("SELECT toUnixTimestamp64Nano(now64(9))")[0][0])
    desk.put([trade(now - 50 * S_NS), trade(now - 500 * S_NS)])
    desk.build(delay_s=200)
    assert {bar["rows"] for bar in desk.bars().values()} == {1}
    assert len(desk.bars()) == 1
    desk.build(delay_s=2)
    assert len(desk.bars()) == 2
    desk.build(delay_s=200)  # one that waits longer takes nothing away
    assert len(desk.bars()) == 2


def test_a_second_build_changes_nothing(desk: Desk) -> None:
    """What is up to date is not inserted again: versions stay."""
    desk.put([trade(ns("12:00:00")), quote(ns("12:00:03"), 1.0, 2.0)])
    assert (desk.build().new, desk.build(ONE_M).new) == (1, 1)
    before = desk.versions()
    again = desk.build()
    assert (again.new, again.late, again.current, again.rows) == (0, 0, 1, 0)
    assert desk.versions() == before


def test_a_clock_that_was_ahead_keeps_no_bar_from_being_made_again(desk: Desk) -> None:
    """Bars of a build by a clock of the future give way to those of the next one, whatever its clock says."""
    at = ns("12:00:00")
    desk.put([trade(at)])
    desk.build()
    stored = f"{desk.database}.{ONE_S.stored}"
    desk.client.command(
        f"INSERT INTO {stored} SELECT * REPLACE (_version * 2 AS _version) FROM {stored} FINAL"
    )
    desk.put([trade(at + 1)])
    desk.build()
    assert [bar["trade_count"] for bar in desk.bars().values()] == [2]
    assert desk.build().late == 0


def test_a_reader_sees_the_bars_of_one_build_at_every_moment(backend: Backend, desk: Desk) -> None:
    """While an hour is built again and again, whoever reads finds every bar once, and all of the same build."""
    at, windows, builds = ns("12:00:00"), 200, 6
    began, done = threading.Event(), threading.Event()
    seen: list[tuple[int, ...]] = []

    def read() -> None:
        with contextlib.closing(backend.open_client()) as client:
            sql = f"SELECT count(), uniqExact(ts), sum(rows), uniqExact(basis) FROM {desk.database}.{ONE_S.name}"
            last = False
            while not last:
                last = done.is_set()  # and once more
                seen.append(tuple(map(int, client.query(sql).result_rows[0])))
                began.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert began.wait(PATIENCE_S)
        for number in range(builds):
            desk.put([trade(at + window * S_NS + number) for window in range(windows)])
            desk.build()
    finally:
        done.set()
        reader.join()
    whole = {(windows, windows, windows * number, 1) for number in range(1, builds + 1)}
    assert set(seen) <= whole | {(0, 0, 0, 0)}
    assert [rows for _, _, rows, _ in seen] == sorted(rows for _, _, rows, _ in seen)
    assert (seen[0], seen[-1]) == ((0, 0, 0, 0), (windows, windows, windows * builds, 1))


def test_nothing_recorded_is_nothing_due(desk: Desk) -> None:
    """An empty table makes no bars and no fault."""
    assert desk.build().new == 0
    assert desk.verify().faults == ()


def test_bars_stay_when_their_rows_go(desk: Desk) -> None:
    """A raw partition that is dropped takes no bar with it, nor does a row that comes late for the same hour."""
    at = ns("23:59:30")
    desk.put([trade(at, 100.0), trade(at + 60 * S_NS, 101.0)])
    desk.build()
    desk.build(ONE_M)
    bars = desk.every_value()
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    assert desk.build().late == 0
    desk.put([trade(at + 120 * S_NS, 102.0)], local_behind_ns=-90_000 * S_NS)
    result = desk.build()
    assert desk.every_value()[0] == bars[0]
    assert result.new == 0
    assert desk.verify().faults == ()


def test_rows_that_are_gone_keep_their_hour_as_it_is(desk: Desk) -> None:
    """Local and venue time lie on either side of midnight: half of an hour's rows go, and its bars stay whole."""
    at = ns("23:59:59") + S_NS  # midnight by venue time, a second before by the local clock
    desk.put([trade(at, 100.0)], local_behind_ns=S_NS)
    desk.put([trade(at + 5 * S_NS, 101.0)], local_behind_ns=S_NS)
    desk.build()
    bars = desk.every_value()
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    desk.put([trade(at + 7 * S_NS, 102.0), trade(at + 8 * S_NS, 102.0)], local_behind_ns=S_NS)
    result = desk.build()
    assert (result.kept, result.late, result.new) == (1, 0, 0)
    assert desk.every_value() == bars
    assert (desk.verify().kept, desk.verify().faults) == (1, ())


def test_a_day_that_goes_while_an_older_one_stays_takes_no_spread_with_it(desk: Desk) -> None:
    """The next day's first hour begins with a quote of the day that went; that an older day is held changes nothing."""
    midnight = ns("00:00:00") + 24 * HOUR_NS
    desk.put([trade(midnight - 40 * HOUR_NS), quote(midnight - 5 * S_NS, 10.0, 12.0), trade(midnight + S_NS)])
    desk.build()
    bars = desk.every_value()
    assert desk.bars()[(*FEED, midnight + S_NS)]["spread_mean"] == 2.0
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    result = desk.build()
    assert (result.kept, result.late) == (1, 0)
    assert desk.every_value() == bars


@pytest.mark.parametrize("shifts", [(-3,), (-3, 3)], ids=["as many", "more"])
def test_late_rows_in_the_place_of_those_that_went_make_no_bars_of_their_own(
    desk: Desk, shifts: tuple[int, ...]
) -> None:
    """A day goes while an older one stays. For its hours come as many rows as are gone and more, from before the first
    to behind the last of them: its bars stay, and the run tells of them. When the rows are back, bars are of all."""
    at = ns("12:00:00")
    gone = [trade(at + 10 * S_NS + 100 + half * S_NS // 2, 100.0) for half in range(6)]
    desk.put([trade(at - 40 * HOUR_NS)])
    desk.put(gone)
    for bars in ALL_BARS:
        desk.build(bars)
    before = [desk.every_value(bars) for bars in ALL_BARS]
    desk.client.command(f"CREATE TABLE {desk.database}.aside AS {desk.database}.market_data")
    try:
        desk.client.command(
            f"INSERT INTO {desk.database}.aside SELECT * FROM {desk.database}.market_data WHERE _seq >= "
            f"(SELECT max(_seq) - 5 FROM {desk.database}.market_data)"
        )
        desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
        late = [trade(one.at + shift, 50.0) for one in gone for shift in shifts]
        late[-1] = late[-1]._replace(at=gone[-1].at + 3)
        desk.put(late)
        for bars, there in zip(ALL_BARS, before, strict=True):
            result = desk.build(bars)
            assert (result.kept, result.late, result.new) == (1, 0, 0)
            assert desk.every_value(bars) == there
            assert (desk.verify(bars).kept, desk.verify(bars).faults) == (1, ())
        desk.client.command(f"INSERT INTO {desk.database}.market_data SELECT * FROM {desk.database}.aside")
    finally:
        desk.client.command(f"DROP TABLE {desk.database}.aside")
    for bars in ALL_BARS:
        assert desk.build(bars).late == 1
        assert sum(bar["rows"] for bar in desk.bars(bars).values()) == 1 + len(gone) + len(late)
        assert desk.verify(bars).faults == ()


def test_late_rows_that_hide_those_of_the_hour_before_take_no_spread_with_them(desk: Desk) -> None:
    """The day before went, and others came for its last hour: the first hour of the next day keeps its first quote."""
    midnight = ns("00:00:00") + 24 * HOUR_NS
    desk.put([trade(midnight - 40 * HOUR_NS), quote(midnight - 5 * S_NS, 10.0, 12.0), trade(midnight + S_NS)])
    desk.build()
    bars = desk.every_value()
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    desk.put([quote(midnight - 5 * S_NS - 1, 10.0, 17.0), quote(midnight - 5 * S_NS + 1, 10.0, 18.0)])
    desk.put([trade(midnight + 2 * S_NS)])
    result = desk.build()
    assert (result.kept, result.late, result.new) == (2, 0, 0)
    assert desk.every_value() == bars


@pytest.mark.parametrize("came", [0, 9])
def test_rows_that_go_while_a_build_runs_take_no_bar_with_them(desk: Desk, came: int) -> None:
    """Between counting an hour's rows and computing of them some are dropped, and others may come: its bars stay as
    they were."""
    at = ns("23:59:59")
    desk.put([trade(at, 100.0), trade(at + 1, 101.0)])
    desk.build()
    bars = desk.every_value()
    desk.put([trade(at + 2, 102.0)], local_behind_ns=-2 * S_NS)
    found = survey(desk.executor, desk.database, ONE_S, Scope())
    (late,) = found.due
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    desk.put([trade(at + nanosecond, 50.0) for nanosecond in range(came)], local_behind_ns=-2 * S_NS)
    desk.executor.command(insert_hour(desk.database, ONE_S, late, found.closed_ns))
    assert desk.every_value() == bars


def test_rows_of_the_hour_before_that_go_while_a_build_runs_take_no_spread_with_them(desk: Desk) -> None:
    """The day before is dropped between counting and computing: the next day's first hour stays as it was."""
    midnight = ns("00:00:00") + 24 * HOUR_NS
    desk.put([quote(midnight - 5 * S_NS, 10.0, 12.0), trade(midnight + S_NS)])
    desk.build()
    bars = desk.every_value()
    desk.put([trade(midnight + S_NS + 1)])
    found = survey(desk.executor, desk.database, ONE_S, Scope())
    (late,) = found.due
    desk.client.command(f"ALTER TABLE {desk.database}.market_data DROP PARTITION 20240808")
    desk.executor.command(insert_hour(desk.database, ONE_S, late, found.closed_ns))
    assert desk.every_value() == bars


def test_verify_finds_a_bar_that_is_not_what_the_rows_make(desk: Desk) -> None:
    """A wrong value, a missing bar and rows that came since are told, with what to do."""
    at = ns("12:00:00")
    desk.put([trade(at), trade(at + S_NS), quote(at, 1.0, 2.0)])
    (fault,) = desk.verify().faults
    assert fault.endswith('2024-08-08 12:00: no bars are built; run "recorder bars build"')
    desk.build()
    assert (desk.verify().faults, desk.verify().hours, desk.verify().rows) == ((), 1, 3)
    stored = f"{desk.database}.{ONE_S.stored}"
    desk.client.command(
        f"INSERT INTO {stored} SELECT * REPLACE (volume + 1 AS volume, _version + 1 AS _version) FROM {stored} FINAL"
    )
    faults = desk.verify().faults
    assert any("the rows make 2 bars" in fault for fault in faults)
    assert any("a volume of 2.0 is recorded, 4.0 in bars" in fault for fault in faults)
    desk.put([trade(at + 1)])
    assert ["rows came since" in fault for fault in desk.verify().faults] == [True]
    desk.build()
    assert desk.verify().faults == ()


def test_a_scope_builds_the_hours_that_begin_in_it(desk: Desk) -> None:
    """`since` counts from the hour that it is in; `until` is the first moment at which no more hours begin."""
    noon = ns("12:00:00")
    desk.put([trade(noon + hour * HOUR_NS + 5) for hour in range(-1, 4)])
    desk.build(scope=Scope(since_ns=noon + 1_800 * S_NS, until_ns=noon + 2 * HOUR_NS))
    assert sorted(begin - noon for _, _, begin in desk.bars()) == [0, HOUR_NS]


def test_a_database_without_the_tables_says_what_to_run(client: Client, database: str) -> None:
    """Not ClickHouse's own words, but the remedy."""
    desk = Desk(client, database, migrate=False)
    with pytest.raises(CannotBuild, match="recorder migrate up"):
        require_tables(desk.executor, database)


TIMES = st.one_of(
    st.integers(0, 12 * S_NS),
    st.integers(HOUR_NS - 3 * S_NS, HOUR_NS + 3 * S_NS),
    st.integers(2 * HOUR_NS - 3 * S_NS, 2 * HOUR_NS + 3 * S_NS),
    st.sampled_from([0, S_NS, HOUR_NS - 1, HOUR_NS, 2 * HOUR_NS]),
)
PRICES = st.one_of(st.none(), st.sampled_from([99.5, 100.0, 100.25, 101.0]))


@st.composite
def sayings(draw: st.DrawFn) -> list[list[Said]]:
    """Rows in the portions in which they come in, of two feeds."""
    begin = ns("11:00:00")
    portions = []
    for _ in range(draw(st.integers(1, 2))):
        portion = []
        for _ in range(draw(st.integers(0, 8))):
            source = draw(st.sampled_from(["binance.spot", "binance.usdm"]))
            at = begin + draw(TIMES)
            if draw(st.booleans()):
                portion.append(Said(source, "BTCUSDT", at, (), quote=(draw(PRICES), draw(PRICES))))
            else:
                traded = draw(st.sampled_from([99.0, 100.0, 101.5])), draw(st.sampled_from([0.1, 0.25, 3.0]))
                aggregated = draw(st.integers(0, 5)) == 0
                portion.append(Said(source, "BTCUSDT", at, (), trade=traded, aggregated=aggregated))
        portions.append(portion)
    return portions


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(portions=sayings())
def test_bars_of_rows_that_come_in_portions_are_those_of_all_rows(
    desk: Desk, portions: list[list[Said]]
) -> None:
    """After each portion and its build, bars equal the plain computation over all rows so far, and those built anew."""
    desk.empty("market_data", *(bars.stored for bars in ALL_BARS))
    so_far: list[Said] = []
    for portion in portions:
        desk.put(portion)
        so_far += portion
        for bars in ALL_BARS:
            desk.build(bars)
            assert differences(plain_bars(placed(so_far), bars.window_ns), desk.bars(bars)) == []
    for bars in ALL_BARS:
        assert desk.verify(bars).faults == ()
        in_portions = desk.every_value(bars)
        desk.empty(bars.stored)
        desk.build(bars)
        assert desk.every_value(bars) == in_portions
