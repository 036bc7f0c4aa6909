"""Durability by setting holds everywhere: critical or not, the database's syncs, what `migrate` says."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from click.testing import CliRunner
from harness.backends import Backend
from harness.recorders import rows, settings_for

from recorder import Recorder, Settings
from recorder.cli.group import main
from schemas.pack import load_packs
from schemas.render import FSYNC_SETTINGS, UNSYNCED_SETTINGS

SWAPPED = {
    "market_data": {"durability": "wal"},
    "orders": {"durability": "memory", "overflow": "drop_oldest"},
}

SYNCED = {f"{name} = 1" for name in FSYNC_SETTINGS}
UNSYNCED = {f"{name} = {value}" for name, value in UNSYNCED_SETTINGS.items()}


def _carried(recorder: Recorder, table: str) -> set[str]:
    """Which of the settings that durability decides the table carries, as `name = value`."""
    ((engine,),) = rows(
        recorder,
        f"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'",
    )
    return {setting for setting in SYNCED | UNSYNCED if setting in engine}


def _differences(backend: Backend, settings: Settings) -> Any:
    """What `recorder migrate check` says under these settings."""
    env = {
        "RECORDER_TARGET": backend.target,
        "RECORDER_DATABASE": settings.database,
        "RECORDER_DATA_DIR": str(settings.data_dir),
    } | {
        f"RECORDER_TABLES__{name.upper()}__{key.upper()}": str(value)
        for name, table in settings.tables.items()
        for key, value in table.model_dump(exclude_none=True).items()
    }
    told = CliRunner().invoke(main, ["migrate", "check", "--json"], env=env)
    return [found["table"] for found in json.loads(told.stdout)["differences"]]


def test_durability_by_setting_is_the_tables(backend: Backend, database: str, tmp_path: pathlib.Path) -> None:
    """Critical tables are those the settings say, new tables and tables that were there follow, and `check` agrees."""
    by_pack = settings_for(backend, database, tmp_path)
    swapped = settings_for(backend, database, tmp_path, tables=SWAPPED)
    for settings, critical, other in (
        (swapped, "market_data", "orders"),
        (by_pack, "orders", "market_data"),
        (swapped, "market_data", "orders"),
    ):
        with Recorder(settings) as recorder:
            tables = recorder.status()["tables"]
            assert tables[critical]["critical"] is True
            assert tables[other]["critical"] is False
            assert _carried(recorder, critical) == SYNCED
            assert _carried(recorder, other) == UNSYNCED
    assert _differences(backend, swapped) == []
    assert {"market_data", "orders"} <= set(_differences(backend, by_pack))


@pytest.mark.parametrize("table", ["market_data", "orders", "fills"])
def test_resolved_packs_say_what_for_table_says(table: str) -> None:
    """Whoever reads a policy, and whoever asks the settings, get one answer; nothing else of a pack changes."""
    settings = Settings(tables=SWAPPED)
    (pack,), (resolved,) = load_packs(["core"]), settings.resolve_packs(load_packs(["core"]))
    assert resolved.table(table).policy.durability is settings.for_table(pack.table(table)).durability
    assert resolved.migrations == pack.migrations
    assert resolved.table(table).schema == pack.table(table).schema
    assert settings.resolve_packs([resolved]) == (resolved,)


def test_a_short_switch_interval_makes_all_builders_pause(
    backend: Backend, database: str, tmp_path: pathlib.Path
) -> None:
    """They share one clock of pauses, since they share a thread; without the setting none pauses."""
    for interval, hold in ((1e-4, 2e-4), (None, None)):
        with Recorder(settings_for(backend, database, tmp_path, switch_interval_s=interval)) as recorder:
            assert recorder._life.thread is not None
            pauses = {
                pipeline._builder._breathe for pipeline in recorder._life.thread.runtime.pipelines.values()
            }
            assert [pause._hold_s for pause in pauses] == [hold]  # type: ignore[attr-defined]
