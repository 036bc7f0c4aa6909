"""Where settings come from, in rising priority: the profile, a TOML file, the environment, keyword arguments.

Each source keeps what it said in a `Trace`, so that an error and `recorder config` can name where a value
came from. What a value means is not known here; see `recorder.settings`.
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource
from pydantic_settings.exceptions import SettingsError as SourceError

from recorder.errors import SettingsError
from recorder.redact import redacted

PREFIX = "RECORDER_"
DELIMITER = "__"
DEFAULT_FILE = "recorder.toml"
RESERVED = re.compile(r"config|debug|git_sha|test_.*")
"""Variables of our own that are no settings."""
SERVICE_LINKS = re.compile(r"service_host|service_port(_.*)?|port|port_\d.*")
"""What Kubernetes puts into every pod of a namespace that has a service named `recorder`."""


@dataclass(frozen=True)
class Said:
    """What one source said. `label` names it; `variables` are those of the environment, by key."""

    label: str
    values: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)

    def label_of(self, path: tuple[str, ...]) -> str | None:
        """Where exactly this source gives the value at `path`; None where it does not."""
        node: Any = self.values
        for key in path:
            if not isinstance(node, Mapping) or key not in node:
                return None
            node = node[key]
        for depth in range(len(path), 0, -1):
            if variable := self.variables.get(DELIMITER.join(path[:depth])):
                return f"environment {variable}"
        return self.label


@dataclass
class Trace:
    """What every source said about one `Settings` object, the strongest first."""

    config: pathlib.Path | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    said_by: str = "argument"
    said: list[Said] = field(default_factory=list)
    unused: tuple[str, ...] = ()

    def source(self, path: tuple[str, ...]) -> str | None:
        """Where the value at `path` came from; None for a default."""
        for source in self.said:
            if label := source.label_of(path):
                return label
        return None

    def nearest_source(self, path: tuple[str, ...]) -> str:
        """The source of `path` or of the closest key above it, for an error message."""
        for depth in range(len(path), 0, -1):
            if label := self.source(path[:depth]):
                return label
        return "settings"


TRACE: ContextVar[Trace] = ContextVar("recorder_settings_trace")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def which_table(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or where no known table is near, which there are and how there can be others."""
    tables = list(known)
    return did_you_mean(word, tables) or (
        f"; there are {', '.join(tables)}: correct the name, or add the pack that has it to packs"
    )


def fold(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain nested dicts: models give what was set on them, and names of tables lose their case."""
    plain = {key: _plain(value) for key, value in values.items()}
    tables = plain.get("tables")
    if isinstance(tables, Mapping):
        plain["tables"] = {str(name).lower(): value for name, value in tables.items()}
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


class Values(PydanticBaseSettingsSource):
    """A source whose values are at hand."""

    def __init__(self, settings_cls: type[BaseSettings], label: str, values: Mapping[str, Any]):
        super().__init__(settings_cls)
        self.label = label
        self.values = fold(values)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` returns everything at once."""
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Everything this source says."""
        TRACE.get().said.append(Said(self.label, self.values))
        return self.values


class ProfileDefaults(PydanticBaseSettingsSource):
    """The weakest source: what the profile that the stronger sources chose sets otherwise."""

    def __init__(self, settings_cls: type[BaseSettings], profiles: Mapping[str, Mapping[str, Any]]):
        super().__init__(settings_cls)
        self.profiles = profiles

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` returns everything at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Everything this source says."""
        profile = str(self.current_state.get("profile", "dev"))
        values = fold(self.profiles.get(profile, {}))
        TRACE.get().said.append(Said(f"profile {profile}", values))
        return values


class Environment(EnvSettingsSource):
    """Variables that begin with `RECORDER_`. An empty one counts as not set."""

    def __init__(self, settings_cls: type[BaseSettings]):
        super().__init__(
            settings_cls,
            case_sensitive=False,
            env_prefix=PREFIX,
            env_nested_delimiter=DELIMITER,
            env_ignore_empty=True,
        )

    def __call__(self) -> dict[str, Any]:
        """Everything this source says."""
        names = {
            name[len(PREFIX) :].lower(): name
            for name, value in os.environ.items()
            if value and name.upper().startswith(PREFIX)
        }
        trace = TRACE.get()
        trace.unused = tuple(self._check_names(names))
        try:
            values = fold(super().__call__())
        except SourceError as error:
            raise SettingsError(self._unreadable(str(error), names)) from None
        trace.said.append(Said("environment", values, names))
        return values

    def _check_names(self, names: Mapping[str, str]) -> list[str]:
        """Variables that set nothing; one that is nearly a setting's name is an error."""
        known = self.settings_cls.model_fields
        nested = ("defaults", "tables", "normalisers")
        unused = []
        for key, variable in names.items():
            first = key.split(DELIMITER)[0]
            if first in known or RESERVED.fullmatch(key) or SERVICE_LINKS.fullmatch(key):
                continue
            for parent in nested:
                if first.startswith(f"{parent}_"):
                    raise SettingsError(
                        f"environment {variable}: keys are nested with two underscores, "
                        f"as in RECORDER_TABLES__MARKET_DATA__LINGER_MS=500"
                    )
            if near := difflib.get_close_matches(first, list(known), n=1, cutoff=0.75):
                raise SettingsError(
                    f"environment {variable}: no such setting; did you mean {PREFIX}{near[0].upper()}?"
                )
            unused.append(variable)
        return unused

    @staticmethod
    def _unreadable(message: str, names: Mapping[str, str]) -> str:
        match = re.search(r'field "(\w+)"', message)
        key = match[1] if match else ""
        where = names.get(key, f"{PREFIX}{key.upper()}")
        return (
            f"environment {where}: is not JSON; write JSON, or set single values, "
            f"as in RECORDER_TABLES__MARKET_DATA__LINGER_MS=500"
        )


def config_file(explicit: pathlib.Path | None) -> pathlib.Path | None:
    """The settings file: the explicit one, else RECORDER_CONFIG's, else `recorder.toml` here if it exists."""
    if explicit is not None:
        return explicit
    if named := os.environ.get(f"{PREFIX}CONFIG"):
        return pathlib.Path(named)
    here = pathlib.Path(DEFAULT_FILE)
    return here if here.exists() else None


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    """A settings file's content.

    Raises:
        SettingsError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: there is no such settings file; create it, or leave out --config and RECORDER_CONFIG"
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 at byte {error.start}; TOML files are UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not valid TOML: {redacted(str(error))}") from None
