"""Laws of the log lines: secrets stay out, JSON is JSON, libraries' lines look the same."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from recorder.log import configure, get_logger, mask

SECRET = "hunter2-s3cr3t"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("recorder").setLevel(logging.NOTSET)


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_stay_out_of_lines(form: str) -> None:
    """Passwords in URLs and values of keys that name a secret are masked, nested and in exceptions."""
    out = io.StringIO()
    configure("info", form, stream=out)
    log = get_logger("recorder.x")
    log.info(
        f"to http://u:{SECRET}@h",
        api_key=SECRET,
        nested={"password": SECRET, "list": [f"http://u:{SECRET}@h"]},
    )
    try:
        raise ValueError(f"cannot reach http://u:{SECRET}@h")
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").warning("at https://u:%s@h", SECRET)
    assert SECRET not in out.getvalue()
    assert out.getvalue().count("***") >= 5


def test_json_lines_are_json() -> None:
    """In JSON every line is an object with a time and a level, from our own loggers and from libraries."""
    out = io.StringIO()
    configure("warning", "json", stream=out)
    get_logger("recorder.x").info("not shown")
    get_logger("recorder.x").warning("shown", rows=3)
    logging.getLogger("library").error("theirs")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("shown", "warning"), ("theirs", "error")]
    assert all("timestamp" in line for line in lines)


def test_a_host_without_our_configuration_has_our_lines_where_it_has_its_own(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a library nothing is printed: a line goes to the standard library's logging, whole and masked."""
    with caplog.at_level(logging.INFO, "recorder"):
        get_logger("recorder.x").warning("100 % shed", table="fills", target=f"http://u:{SECRET}@h")
    assert caplog.messages == ["100 % shed table='fills' target='http://u:***@h'"]
    assert capsys.readouterr().out == ""


def test_names_that_only_contain_a_word_are_kept() -> None:
    """Masking goes by the last word of a key, so that counts and tokens of deduplication by other names stay."""
    assert mask({"tokens_seen": 3, "secretary": "x", "api_token": "y", "password": ""}) == {
        "tokens_seen": 3,
        "secretary": "x",
        "api_token": "***",
        "password": "",
    }
