"""Retention in the settings of a table: what may be said, what contradicts itself, and what the database carries."""

from __future__ import annotations

import pytest

from recorder.errors import SettingsError
from recorder.packs import packs_of
from recorder.settings import Settings
from retention.errors import PolicyError
from retention.holds import Hold
from retention.policy import RetentionPolicy
from schemas.core.tables import PACK
from schemas.policy import Partition

MARKET_DATA = next(table for table in PACK.tables if table.name == "market_data")


def _settings(**values: object) -> Settings:
    return Settings(tables={"market_data": values}, packs=("core",))


def test_all_is_off_unless_set() -> None:
    """By default no table has an archive, bars or tiers, and the database deletes by its own TTL."""
    for table in PACK.tables:
        resolved = Settings().for_table(table)
        assert (resolved.archive_after_days, resolved.bars, resolved.tier_after_days) == (None, False, None)
        assert resolved.ttl_days == resolved.keep_days == table.policy.keep_days


@pytest.mark.parametrize("values", [{"archive_after_days": 30}, {"archive_after_days": "90"}, {"bars": True}])
def test_where_rows_need_a_proof_the_database_deletes_nothing(values: dict[str, object]) -> None:
    """An archive or bars take the TTL away; how long rows are kept stays."""
    resolved = _settings(**values).for_table(MARKET_DATA)
    assert resolved.keep_days == 90
    assert resolved.ttl_days is None


def test_a_table_can_be_left_out_of_what_all_have() -> None:
    """`never` and false win over `defaults`."""
    own = {"archive_after_days": "never", "bars": False}
    everywhere = {"archive_after_days": 20, "bars": True, "keep_days": 30}
    settings = Settings(defaults=everywhere, tables={"market_data": own})
    resolved = settings.for_table(MARKET_DATA)
    assert (resolved.archive_after_days, resolved.bars, resolved.ttl_days) == (None, False, 30)
    fills = next(table for table in PACK.tables if table.name == "fills")
    assert settings.for_table(fills).archive_after_days == 20


def test_bars_are_asked_for_where_there_are_any() -> None:
    """Said in `defaults` it is for `market_data`, and no row of another table stays for bars that nobody makes; said of
    another table it is refused at start, with what to do. False may be said of any."""
    settings = Settings(defaults={"bars": True}, packs=("core",))
    for pack in packs_of(settings):
        for table in pack.tables:
            resolved = settings.for_table(table)
            assert resolved.bars == (table.name == "market_data")
            assert resolved.ttl_days == (None if resolved.bars else resolved.keep_days)
    with pytest.raises(
        SettingsError, match=r"tables\.fills: bars are made of market_data alone.*take it away"
    ):
        packs_of(Settings(tables={"fills": {"bars": True}}, packs=("core",)))
    packs_of(Settings(tables={"fills": {"bars": False}}, packs=("core",)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"archive_after_days": 91}, "archive_after_days 91 must not be above keep_days 90"),
        ({"archive_after_days": 8, "keep_days": 7}, "archive_after_days 8 must not be above keep_days 7"),
        ({"tier_after_days": 90}, "tier_after_days 90 must be below keep_days 90"),
        ({"tier_after_days": 5, "archive_after_days": 9}, "tier_after_days and archive_after_days exclude"),
        ({"tier_after_days": 5, "bars": True}, "tier_after_days and bars exclude"),
    ],
)
def test_contradictions_are_refused(values: dict[str, object], words: str) -> None:
    """What cannot be is refused when settings meet the pack, with the table's name and what to do."""
    with pytest.raises(SettingsError, match=words) as refused:
        packs_of(_settings(**values))
    assert "tables.market_data" in str(refused.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "soon", True, ""])
@pytest.mark.parametrize("key", ["archive_after_days", "tier_after_days"])
def test_what_is_no_number_of_days_is_refused(key: str, value: object) -> None:
    """Days are whole and above 0, or `never`."""
    with pytest.raises(SettingsError, match=f"tables.market_data.{key}: must be a"):
        _settings(**{key: value})


def test_kept_for_ever_goes_with_an_archive_and_with_tiers() -> None:
    """Rows that stay may be archived, or moved."""
    assert _settings(keep_days="forever", archive_after_days=900).for_table(MARKET_DATA).keep_days is None
    assert _settings(keep_days="forever", tier_after_days=900).for_table(MARKET_DATA).tier_after_days == 900


def test_a_policy_refuses_what_settings_refuse() -> None:
    """Nor can a policy be made that contradicts itself, or a hold that holds nothing."""
    with pytest.raises(PolicyError, match="t: archive_after_days 3 must not be above keep_days 2"):
        RetentionPolicy(table="t", partition=Partition.DAY, keep_days=2, archive_after_days=3)
    with pytest.raises(PolicyError, match="hold case-7: its time from 5 to before 5 is empty"):
        Hold(name="case-7", since_ns=5, until_ns=5)
