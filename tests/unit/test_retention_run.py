"""What a run that nobody looks at refuses to begin."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import pytest

from recorder.retaining.book import End, Ended
from recorder.retaining.run import said
from recorder.settings import Settings
from schemas.core.tables import PACK


class Asked:
    """A runner that notes the tables that it was to run over."""

    def __init__(self) -> None:
        self.tables: list[str] = []

    def run(self, subject: Any) -> list[Any]:
        self.tables.append(subject.policy.table)
        return []


@pytest.mark.parametrize("ttl", [None, True, False])
def test_settings_that_keep_rows_are_believed(tmp_path: pathlib.Path, ttl: bool | None) -> None:
    """Where they say that rows stay and the database that rows expire, nothing is done, and that is told."""
    settings = Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path, ttl=ttl)
    runner = Asked()
    opened: Any = contextlib.nullcontext((runner, True))
    (end,) = said(settings, [PACK], opened)
    if ttl is not False:
        assert (end, runner.tables[0]) == (End(how=Ended.DONE), "market_data")
        return
    assert isinstance(end, End)
    assert (end.how, runner.tables) == (Ended.FAILED, [])
    assert "migrate up --no-ttl" in end.why


def test_where_both_keep_rows_it_runs(tmp_path: pathlib.Path) -> None:
    """What else is due is done."""
    settings = Settings(target=f"chdb://{tmp_path}/db", data_dir=tmp_path, ttl=False)
    runner = Asked()
    opened: Any = contextlib.nullcontext((runner, False))
    assert list(said(settings, [PACK], opened)) == [End(how=Ended.DONE)]
    assert "market_data" in runner.tables
