"""The table of older rows cannot be asked: rows that may be there wait, and everybody who looks learns why."""

from __future__ import annotations

import pathlib
import threading
import time

import pytest
from harness import alarms
from harness.alarms import standing
from harness.faulty_sink import Fail
from harness.gone_child import LONG_AGO_NS, put
from harness.recorders import WAIT_S, faulty, settings_for, wait_until

from recorder import Recorder, housekeeping
from recorder.left_on_logs import left_on_logs
from recorder.replaying import Replaying
from recorder.sink.errors import HoldError, SinkUnavailable
from retention.archive import Entry, FolderStore
from schemas.core.tables import PACK

WHY = "where rows are that are not in it any more cannot be asked"
TIER = {"orders": {"tier_after_days": 5, "keep_days": "forever"}}


def test_a_table_of_older_rows_that_cannot_be_asked_is_told(
    chdb_path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm, `/readyz` and a replay say so, and the replay gives up; rows of now go in. At last the others do."""
    monkeypatch.setattr(housekeeping, "ALARM_LOOK_S", alarms.LOOK_S)
    settings = settings_for(chdb_path, "gone_unasked", tmp_path, tables=TIER, **alarms.QUICK)
    sink = faulty(settings)
    sink.always("orders", Fail(SinkUnavailable("away")))
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, 0, 20, LONG_AGO_NS)
        recorder.sync(WAIT_S)
    left = left_on_logs(settings.log_folders, {table.name: table for table in PACK.tables})
    assert left["orders"].rows == 20
    sink = faulty(settings)
    sink.plan_look_up("archived_orders", *[HoldError("not enough privileges", code=497)] * 100_000)
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, 100, 10, time.time_ns())
        recorder.flush(WAIT_S)
        assert recorder.balance()["orders"].inserted == 10
        replaying = Replaying(recorder, left, wait_s=0.2)
        assert not replaying.run(lambda progress: None), "it waits for ever"
        assert WHY in replaying.result()["orders"].why
        assert any("orders is waiting" in why and WHY in why for why in recorder.unready())
        alarm = "RecorderFailure", "orders"
        wait_until(lambda: WHY in standing(recorder).get(alarm, ""), "the alarm")
        sink._look_up_errors["archived_orders"].clear()
        wait_until(lambda: recorder.earlier()["orders"].done, "what the earlier run left")
        assert recorder.balance()["orders"].inserted == 30
        wait_until(lambda: not recorder.unready() and alarm not in standing(recorder), "the end of it")


def test_who_waits_for_an_archive_is_not_stuck(
    chdb_path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large archive takes its time, and that is no standstill; what waits for it gets in at last."""
    archived = {"orders": {"archive_after_days": 5, "keep_days": 30}}
    settings = settings_for(chdb_path, "gone_slow", tmp_path, tables=archived)
    sink = faulty(settings)
    sink.always("orders", Fail(SinkUnavailable("away")))
    with Recorder(settings, sink=sink) as recorder:
        put(recorder, 0, 20, LONG_AGO_NS)
        recorder.sync(WAIT_S)
    asked, answers = threading.Event(), threading.Event()

    def slow(self: FolderStore, folder: str) -> list[Entry]:
        asked.set()
        answers.wait(WAIT_S)
        return []

    monkeypatch.setattr(FolderStore, "files", slow)
    with Recorder(settings) as recorder:
        try:
            wait_until(asked.is_set, "the question")
            put(recorder, 100, 10, time.time_ns())
            recorder.flush(WAIT_S)
            assert not recorder.earlier()["orders"].done
            wait_until(lambda: recorder.balance()["orders"].inserted == 10, "rows of now")
            wait_until(
                lambda: recorder._life.ask(lambda runtime: runtime.pipelines["orders"].at_work()) is None,
                "a worker without work",
            )
        finally:
            answers.set()
        wait_until(lambda: recorder.earlier()["orders"].done, "what the earlier run left")
        assert recorder.balance()["orders"].inserted == 30
