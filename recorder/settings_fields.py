"""Types of settings: what a value may look like in a file or the environment, and what becomes of it.

Validators raise ValueError with words for people; who said the value is added by `recorder.settings_problems`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import re
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError

from recorder.redact import Redactor, redacted
from recorder.target import Target, parse_target
from schemas.policy import KEEP_DAYS_MAX

FOREVER: Literal["forever"] = "forever"
UnknownFields = Literal["dead_letter", "ignore"]


def number(value: Any) -> Any:
    """A number as it came; pydantic would take true for 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a truth value")
    return value


def byte_count(value: Any) -> Any:
    """Bytes, from a number or a text with a unit."""
    if isinstance(value, str):
        try:
            return int(TypeAdapter(ByteSize).validate_python(value))
        except ValidationError:
            raise ValueError('must be a number of bytes, or one with a unit as in "16 MiB"') from None
    return number(value)


def names(value: Any) -> Any:
    """Names, from a text separated by commas, or from a list as JSON and TOML write it."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            try:
                return json.loads(text)
            except ValueError:
                raise ValueError(f'{text!r} is no JSON list; write core,other or ["core", "other"]') from None
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return value


def bus_urls(value: Any) -> Any:
    """URLs of buses, each once: the same messages from two subscriptions would be taken for different ones."""
    urls = names(value)
    if isinstance(urls, list | tuple):
        for url in urls:
            if isinstance(url, str) and "://" not in url:
                raise ValueError(f"{redacted(url)!r} is no URL; write zmq://127.0.0.1:5570 or alike")
        if len(set(map(str, urls))) < len(urls):
            raise ValueError("names a bus twice; give each URL once")
    return urls


def patterns(value: Any) -> Any:
    """Regular expressions, from a text that is one, or from a list as JSON and TOML write it; checked."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
        if not isinstance(value, list):
            raise ValueError('write one regular expression, or more as a JSON list: ["one", "other"]')
    return tuple(value)


def checked_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same; refuses what is no regular expression, and what matches too much."""
    Redactor(patterns=value)
    return value


def checked_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same; refuses what is no name."""
    Redactor(keys=value)
    return value


def keep_days(value: Any) -> Any:
    """Days, or `forever`."""
    if isinstance(value, str) and value.strip().lower() == FOREVER:
        return FOREVER
    days = number(value)
    try:
        days = int(days) if not isinstance(days, float) or days.is_integer() else days
    except ValueError:
        raise ValueError(f'must be a number of days or "{FOREVER}"') from None
    if not isinstance(days, int) or days <= 0:
        raise ValueError(f'must be a whole number of days above 0, or "{FOREVER}" to keep every row')
    if days > KEEP_DAYS_MAX:
        raise ValueError(f'must be at most {KEEP_DAYS_MAX:,} days, or "{FOREVER}" to keep every row')
    return days


def target_of(value: Any) -> Any:
    """A target, parsed, with an absolute path."""
    target = parse_target(value) if isinstance(value, str) else value
    if isinstance(target, Target):
        if target.embedded:
            target = replace(target, path=str(folder(target.path)))
        database_name(target.database or "default")
    return target


def default_target(data: dict[str, Any]) -> Target:
    """The embedded engine under the data folder."""
    folder = data.get("data_dir", pathlib.Path("data").absolute())
    return Target("chdb", path=str(folder / "db"))


def default_database(data: dict[str, Any]) -> str:
    """The target's database."""
    target = data.get("target")
    return (target.database if target is not None else "") or "default"


def database_name(value: Any) -> Any:
    """A name that needs no quoting."""
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f"{value!r} is no database name; use letters, digits and underscores")
    return value


def off_at_zero(value: Any) -> Any:
    """None for 0 and `off`."""
    return None if number(value) in (0, "0", "off") else value


def folder(value: Any) -> Any:
    """An absolute path."""
    if isinstance(value, str | os.PathLike):
        return pathlib.Path(value).expanduser().absolute()
    return value


def archive_root(value: Any) -> Any:
    """A folder as an absolute path, or the root of a bucket as it is written."""
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    if "://" not in text:
        return str(folder(text)) if text else None
    # Here, since whoever only records should not wait for the libraries of Parquet files.
    from retention.archive.store_url import check_root
    from retention.errors import StoreError

    try:
        check_root(text)
    except StoreError as error:
        raise ValueError(str(error)) from None
    return text


def schedule_of(value: Any) -> Any:
    """A cron expression, or None for `off`."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "off":
        return None
    from recorder.retaining.schedule import Schedule  # here, since whoever only records has none

    return Schedule(value).expression


class Address(NamedTuple):
    """Where a port is opened."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port` or `:port` (loopback); port 0 takes a free one.

    Raises:
        ValueError: it is no address.
    """
    match = re.fullmatch(
        r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:\s]*)):(?P<port>\d{1,5})", text.strip()
    )
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"{text!r} is no address; write host:port as in 127.0.0.1:9477")
    return Address(match["v6"] or match["name"] or "127.0.0.1", int(match["port"]))


def health_addr_of(value: Any) -> Any:
    """`host:port`, or None for `off`."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in ("off", "none", ""):
        return None
    try:
        return str(parse_address(value))
    except ValueError as error:
        raise ValueError(f'{error}, or "off"') from None


Count = Annotated[int, BeforeValidator(number), Field(gt=0)]
Size = Annotated[int, BeforeValidator(byte_count), Field(gt=0)]
Millis = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, BeforeValidator(number), Field(gt=0, le=1, allow_inf_nan=False)]
