"""What `recorder config` prints: every setting in force, and where it came from. Secrets are masked."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from recorder.redact import redacted
from recorder.settings_tables import BUILTIN, NormaliserSettings, TableSettings
from recorder.target import Target

if TYPE_CHECKING:
    from recorder.settings import Settings


class Explained(NamedTuple):
    """One setting in force: its key with dots, its value (secrets masked, for JSON), where it came from."""

    key: str
    value: Any
    source: str


def explain(settings: Settings) -> list[Explained]:
    """Every setting in force and its source; of `tables` what was set."""
    entries: list[Explained] = []

    def add(path: tuple[str, ...], value: Any) -> None:
        entries.append(Explained(".".join(path), _plain(value), settings.source_of(path)))

    for key in type(settings).model_fields:
        value = getattr(settings, key)
        if key == "defaults":
            for name in TableSettings.model_fields:
                said = getattr(value, name)
                if said is None:
                    said = BUILTIN.get(
                        name, getattr(settings, name, None) if name == "unknown_fields" else "by table"
                    )
                add((key, name), said)
        elif key == "tables":
            for table, entry in sorted(value.items()):
                for name in TableSettings.model_fields:
                    if getattr(entry, name) is not None:
                        add((key, table, name), getattr(entry, name))
        elif key == "normalisers":
            for normaliser in [*NormaliserSettings.model_fields, *(value.__pydantic_extra__ or {})]:
                for name, item in value.of(normaliser).items():
                    add((key, normaliser, name), item)
        else:
            add((key,), value)
    return entries


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, with secrets masked."""
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    if isinstance(value, Target | pathlib.Path):
        return str(value)
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
