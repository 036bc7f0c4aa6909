"""Where the archive is: what a command was told, else what the settings say, else a folder below the data folder."""

from __future__ import annotations

import pathlib

import pytest

from recorder import Settings
from recorder.archive_root import archive_store
from recorder.errors import SettingsError


def test_the_nearest_word_counts(tmp_path: pathlib.Path) -> None:
    """What a command was told is stronger than the settings, and these than the data folder."""
    plain = Settings(data_dir=tmp_path)
    named = Settings(data_dir=tmp_path, archive=tmp_path / "kept")
    assert str(archive_store(plain)) == str(tmp_path / "archive")
    assert str(archive_store(named)) == str(tmp_path / "kept")
    assert str(archive_store(named, str(tmp_path / "other"))) == str(tmp_path / "other")


def test_a_relative_folder_does_not_move_with_the_process(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one below where the settings were read."""
    monkeypatch.chdir(tmp_path)
    assert Settings(archive="kept").archive == str(tmp_path / "kept")


def test_a_bucket_is_kept_as_written() -> None:
    """No path is made of it."""
    assert Settings(archive="s3://bucket/trading").archive == "s3://bucket/trading"


@pytest.mark.parametrize(
    "root", ["ftp://host/x", "s3://key:secret@bucket/x", "s3://bucket/x?token=1", "s3://"]
)
def test_what_is_no_archive_is_refused_at_start(root: str) -> None:
    """Not at two in the morning; and no secret is repeated."""
    with pytest.raises(SettingsError, match="name a folder, or s3://bucket/prefix") as refused:
        Settings(archive=root)
    assert "secret" not in str(refused.value)
    assert "token" not in str(refused.value)
