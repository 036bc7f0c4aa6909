"""What a recorder is told: one frozen `Settings` value from defaults, a file, the environment and the caller.

Rising priority: the defaults below, the profile, a TOML file (`recorder.toml` here, or the one
that `--config` or RECORDER_CONFIG names), environment variables (`RECORDER_DATA_DIR`, nested with two underscores
as in `RECORDER_TABLES__MARKET_DATA__LINGER_MS=500`), and keyword arguments or options of a command.

Invariants: a `Settings` object is valid or was never made (`SettingsError`, one line a problem, naming
source and remedy); it never shows a secret; every value knows where it came from (`source_of`). What a table
has in the end, the policy of its pack included, is `Settings.for_table`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from recorder.errors import SettingsError
from recorder.settings_explain import explain
from recorder.settings_fields import (
    Address,
    Count,
    Millis,
    Ratio,
    Seconds,
    Size,
    UnknownFields,
    archive_root,
    bus_urls,
    byte_count,
    checked_keys,
    checked_patterns,
    database_name,
    default_database,
    default_target,
    folder,
    health_addr_of,
    names,
    number,
    parse_address,
    patterns,
    schedule_of,
    target_of,
)
from recorder.settings_problems import problem_line
from recorder.settings_resolve import ResolvedTable, check_with_defaults, complaint_of, resolve
from recorder.settings_sources import (
    TRACE,
    Environment,
    ProfileDefaults,
    Trace,
    Values,
    config_file,
    read_toml,
    which_table,
)
from recorder.settings_tables import (
    BUILTIN,
    BinanceSettings,
    NormaliserSettings,
    TableSettings,
)
from recorder.target import Target
from schemas.policy import groups_complaint

if TYPE_CHECKING:
    from schemas.pack import Pack
    from schemas.table import Table

__all__ = [
    "BUILTIN",
    "PROFILES",
    "Address",
    "BinanceSettings",
    "NormaliserSettings",
    "ResolvedTable",
    "Settings",
    "TableSettings",
    "parse_address",
    "process_run_id",
]

_CONSEQUENCE = "default_factory_not_called"
"""pydantic's word for a default that another wrong value kept from being made."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "dev": {},
    "production": {"log_format": "json", "health_addr": "127.0.0.1:9477"},
}
"""What each profile sets otherwise than the model's defaults."""


@lru_cache(maxsize=8)
def _process_run_id(_pid: int) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


def process_run_id() -> str:
    """The run id of this process: when it was first asked for, and 32 random bits."""
    return _process_run_id(os.getpid())


class Settings(BaseSettings):
    """All settings of a recorder.

    `Settings(config=path)` reads that file instead of looking for one; `base` gives defaults of a command,
    weaker than every source but the profile; `said_by` is what errors call the keyword arguments. All other
    keyword arguments are settings, and the strongest source; None means not given.

    Raises:
        SettingsError: a source cannot be read, or a value cannot be what it was set to.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=False,
        arbitrary_types_allowed=True,
    )

    profile: Literal["dev", "production"] = Field(
        default="dev", description="A set of defaults; see Profiles."
    )
    data_dir: Annotated[pathlib.Path, BeforeValidator(folder)] = Field(
        default_factory=lambda: pathlib.Path("data").absolute(),
        description="Folder of the embedded database and all local state.",
    )
    target: Annotated[Target, NoDecode, BeforeValidator(target_of)] = Field(
        default_factory=default_target,
        description="Where rows go: `chdb:///path/to/db`, `http://host:8123/database`, "
        "`https://user:password@a:8443,b:8443/database`. Passwords are masked wherever it is shown.",
    )
    target_password_file: Annotated[pathlib.Path, BeforeValidator(folder)] | None = Field(
        default=None,
        description="File with the password of the target's user, read again at each connection and after a "
        "refused login.",
    )
    tls_ca: Annotated[pathlib.Path, BeforeValidator(folder)] | None = Field(
        default=None,
        description="File with the authorities (PEM) that may have signed a server's certificate; unset means the "
        "system's.",
    )
    tls_cert: Annotated[pathlib.Path, BeforeValidator(folder)] | None = Field(
        default=None,
        description="File with the client certificate (PEM). Without a password it is also the login of the user.",
    )
    tls_key: Annotated[pathlib.Path, BeforeValidator(folder)] | None = Field(
        default=None, description="File with its private key (PEM), where that is not in `tls_cert`."
    )
    tls_server_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name that the server's certificate must be for, where it is not the target's host.",
    )
    tls_verify: bool = Field(
        default=True,
        description="Verify the server's certificate. `false` lets anybody in between read and change rows; it warns.",
    )
    compression: Literal["lz4", "zstd", "gzip", "none"] = Field(
        default="lz4", description="Compression of what travels to and from a server."
    )
    connect_timeout_s: Seconds = Field(
        default=5.0, description="Time after which a connection to a server that is not made is given up."
    )
    database: Annotated[str, BeforeValidator(database_name)] = Field(
        default_factory=default_database,
        description="Database of the tables; the target's own, else `default`.",
    )
    run_id: str = Field(
        default_factory=process_run_id,
        min_length=1,
        description="The producer's run, for rows that name none.",
    )
    packs: Annotated[tuple[str, ...], NoDecode, BeforeValidator(names)] = Field(
        default=("core",),
        min_length=1,
        description="Schema packs to record; in the environment separated by commas, or a JSON list.",
    )
    migrate_on_start: bool | None = Field(
        default=None,
        description="Apply pending migrations at start; unset means yes for chdb and no for servers.",
    )
    ttl: bool | None = Field(
        default=None,
        description="Whether tables that are created carry their time to live; unset means yes. "
        "With `false` rows stay until someone deletes them.",
    )
    engine_keep_free_bytes: Annotated[int, BeforeValidator(byte_count), Field(ge=0)] | None = Field(
        default=None,
        description="What the embedded engine leaves free on its disk; inserts wait while it cannot. Unset means "
        "64 MiB, at most an eighth of the disk; 0 is off.",
    )
    insert_timeout_s: Seconds = Field(
        default=30.0, description="Time after which a running insert is killed."
    )
    shutdown_timeout_s: Seconds = Field(default=30.0, description="Time that closing may take.")
    insert_budget_per_s: Seconds = Field(
        default=40.0, description="Inserts per second over all tables; the linger stretches to keep it."
    )
    retry_initial_s: Seconds = Field(
        default=0.1, description="First pause after a failed insert; it doubles, with jitter."
    )
    retry_max_s: Seconds = Field(default=10.0, description="Longest pause between attempts.")
    hold_probe_s: Seconds = Field(default=5.0, description="How often a held table is probed.")
    schema_check_s: Seconds = Field(
        default=30.0,
        description="How often the live tables are compared with the row classes; one that differs is held.",
    )
    unknown_retries: Annotated[int, BeforeValidator(number), Field(ge=0)] = Field(
        default=5, description="Attempts after an error of an unknown code before the table is held."
    )
    dead_letter_ratio: Ratio = Field(
        default=0.5, description="Share of refused rows among the last 1,000 above which the table is held."
    )
    wal: bool = Field(
        default=True,
        description="Keep the rows of critical tables in a log under `data_dir`/wal until the database has them.",
    )
    wal_sync: Literal["always", "interval", "off"] = Field(
        default="always",
        description="When the log is synced: `always` is with each group, `interval` every `wal_interval_ms`, `off` "
        "never.",
    )
    wal_group_ms: Millis = Field(
        default=10.0, description="How long rows wait for others to be written to the log with them."
    )
    wal_interval_ms: Millis = Field(
        default=1_000.0, description="With `wal_sync` `interval`: as much may be lost at a power cut."
    )
    wal_grace_s: Seconds = Field(
        default=600.0,
        description="How long the log keeps rows that the database confirmed; if it restarts meanwhile, they are "
        "looked up again.",
    )
    wal_second_dir: Annotated[pathlib.Path, BeforeValidator(folder)] | None = Field(
        default=None,
        description="A second folder for the log, on another disk, where it goes on when the first one fails or is "
        "full. Not shared with another recorder.",
    )
    wal_min_minutes: Annotated[float, BeforeValidator(number), Field(ge=0)] = Field(
        default=10.0,
        description="Warn when the room for the log lasts for fewer minutes than this at the recent rate; 0 is off.",
    )
    wal_warning_fraction: Ratio = Field(
        default=0.8, description="Share of the log's disk, or of its quota, from which on it warns."
    )
    wal_emergency_fraction: Ratio = Field(
        default=0.9, description="Share from which on only critical tables write to the log."
    )
    wal_quota_bytes: Annotated[int, BeforeValidator(byte_count), Field(ge=268_435_456)] | None = Field(
        default=None,
        description="What the log may take in all, at least 256 MiB; unset means as much as its disk has.",
    )
    wal_reserve_bytes: Annotated[int, BeforeValidator(byte_count), Field(ge=0)] = Field(
        default=64 * 1024 * 1024,
        description="Room that is kept for when the log's disk is full, at most a 16th of the disk; 0 is none.",
    )
    wal_emergency: Literal["shed", "drop_oldest"] = Field(
        default="shed",
        description="When the log's disk is full and memory too: `shed` new rows, or `drop_oldest`: remove the oldest "
        "segments, and the rows that stand on them alone. Both are counted, and told in gap rows.",
    )
    archive: Annotated[str | None, BeforeValidator(archive_root)] = Field(
        default=None,
        description="Where partitions are archived: a folder, or `s3://bucket/prefix`; unset means `archive` in "
        "`data_dir`. Credentials of a bucket come from the environment (`docs/archive.md`).",
    )
    archive_export: Literal["auto", "client", "server"] = Field(
        default="auto",
        description="Who writes archived partitions: `client`, the recorder; `server`, the database itself, where it "
        "can; `auto`, the database where it is a server and `archive_collection` names its way to a bucket "
        "(`docs/archive.md`).",
    )
    archive_collection: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A named collection of the server with the URL of the archive's root in a bucket and the server's "
        "own credentials for it.",
    )
    retention_schedule: Annotated[str | None, BeforeValidator(schedule_of)] = Field(
        default="0 2 * * *",
        description="When `recorder run` carries out what retention has due, as cron writes it: minute, hour, day of "
        'the month, month, day of the week, in UTC; "off" for never (`docs/retention.md`).',
    )
    gap_window_s: Seconds = Field(
        default=1.0, description="Shed rows of this window are told in one gap row and one line of the log."
    )
    alarm_retry_s: Seconds = Field(
        default=5.0,
        description="How long inserts of a table may fail before that is an alarm (`docs/alarms.md`).",
    )
    alarm_clear_s: Seconds = Field(
        default=10.0, description="How long what raised an alarm must be over before the alarm is cleared."
    )
    alarm_loss_s: Seconds = Field(
        default=3_600.0, description="The same of `RecorderDataLoss`, after the last row was lost."
    )
    stuck_grace_s: Seconds = Field(
        default=60.0,
        description="A table's task that has work and does none of it is stuck after `insert_timeout_s`, its longest "
        "pause, and this: time for the kill and the look-up. It raises an alarm; nothing is killed.",
    )
    loop_stall_s: Seconds = Field(
        default=5.0,
        description="An event loop that does not turn for so long is logged, with where it stands, and raises an "
        "alarm.",
    )
    metrics_interval_s: Seconds = Field(
        default=10.0, description="How often metrics are sampled into `metrics_timeseries`."
    )
    unknown_fields: UnknownFields = Field(
        default="dead_letter",
        description="What a field the table lacks does to its row: `dead_letter`, or `ignore` (counted).",
    )
    redact_keys: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(names), AfterValidator(checked_keys)
    ] = Field(
        default=(),
        description="Names of secrets beside the built-in ones, whose values are cut out of payloads, texts, dead "
        "letters and logs (`docs/redaction.md`).",
    )
    redact_patterns: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(patterns), AfterValidator(checked_patterns)
    ] = Field(
        default=(),
        description="Regular expressions (RE2) of secrets that no name stands before; in the environment one, or a "
        "JSON list.",
    )
    switch_interval_s: Annotated[float, BeforeValidator(number), Field(gt=0, le=1)] | None = Field(
        default=None,
        description="`sys.setswitchinterval` of the process; unset leaves it alone. "
        "0.0001 suits a producer that must not wait (`docs/threads.md`).",
    )
    health_addr: Annotated[str | None, BeforeValidator(health_addr_of)] = Field(
        default=None, description='Address of metrics and health as `host:port`; "off" for none.'
    )
    health_allow_remote: bool = Field(
        default=False,
        description="Allow an address that other machines reach; the port has no authentication.",
    )
    bus: Annotated[tuple[str, ...], NoDecode, BeforeValidator(bus_urls)] = Field(
        default=(),
        description="Buses that `recorder run` subscribes to, as URLs; in the environment separated by commas.",
    )
    bus_window_messages: Count = Field(
        default=8_192, description="Messages of a bus that are delivered and not acknowledged, at most."
    )
    bus_window_bytes: Size = Field(default=64 * 1024 * 1024, description="Bytes of these messages, at most.")
    bus_allow_remote: bool = Field(
        default=False,
        description="Allow a bus without authentication on an address that other machines reach.",
    )
    topics: dict[str, str] = Field(
        default_factory=dict,
        description="Where messages of a topic go, by patterns with `*`: a table, `normaliser:NAME`, or `ignore`; a "
        "topic without one names its table.",
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        default="info", description="Least severe message that commands log."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Form of the log lines of commands."
    )
    order_ids_max: Annotated[int, BeforeValidator(number), Field(ge=0, le=10_000_000)] = Field(
        default=100_000,
        description="Orders remembered to complete rows of their venue with strategy, intent and times, at most "
        "3 kB each; 0 completes nothing.",
    )
    normalisers: NormaliserSettings = Field(
        default_factory=NormaliserSettings, description="Settings of normalisers."
    )
    defaults: TableSettings = Field(default_factory=TableSettings, description="Settings of all tables.")
    tables: dict[str, TableSettings] = Field(
        default_factory=dict,
        description="Settings per table, over `defaults`; case of the names does not matter.",
    )

    _trace: Trace = PrivateAttr(default_factory=Trace)

    def __init__(
        self,
        *,
        config: str | pathlib.Path | None = None,
        base: Mapping[str, Any] | None = None,
        said_by: str = "argument",
        **values: Any,
    ):
        trace = Trace(
            config_file(pathlib.Path(config) if config is not None else None),
            dict(base or {}),
            said_by=said_by,
        )
        token = TRACE.set(trace)
        try:
            super().__init__(**{key: value for key, value in values.items() if value is not None})
        except ValidationError as error:
            # Not `from error`: pydantic's own text shows inputs, and a target may hold a password.
            problems = [
                problem_line(item, trace, type(self))
                for item in error.errors()
                if item["type"] != _CONSEQUENCE
            ]
            raise SettingsError(*dict.fromkeys(problems)) from None
        finally:
            TRACE.reset(token)
        self._trace = trace

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources, strongest first; each tells the trace what it said."""
        trace = TRACE.get()
        arguments = getattr(init_settings, "init_kwargs", {})
        sources: list[PydanticBaseSettingsSource] = [
            Values(settings_cls, trace.said_by, arguments),
            Environment(settings_cls),
        ]
        if trace.config is not None:
            sources.append(Values(settings_cls, str(trace.config), read_toml(trace.config)))
        if trace.base:
            sources.append(Values(settings_cls, "this command", trace.base))
        sources.append(ProfileDefaults(settings_cls, PROFILES))
        return tuple(sources)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Check what one setting alone cannot tell."""
        if self.retry_initial_s > self.retry_max_s:
            raise ValueError(
                f"retry_initial_s {self.retry_initial_s:g} must not be above retry_max_s {self.retry_max_s:g}"
            )
        if self.wal_warning_fraction > self.wal_emergency_fraction:
            raise ValueError(
                f"wal_warning_fraction {self.wal_warning_fraction:g} must not be above wal_emergency_fraction "
                f"{self.wal_emergency_fraction:g}"
            )
        if self.wal_second_dir == self.log_folders[0]:
            raise ValueError(
                f"wal_second_dir {self.wal_second_dir} is the log's first folder; name another one"
            )
        if self.target_password_file is not None and self.target.password is not None:
            raise ValueError("target_password_file and a password in target: give one of them")
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key without tls_cert: name the certificate that it belongs to")
        address = self.health_address
        if address is not None and not address.loopback and not self.health_allow_remote:
            raise ValueError(
                f"health_addr {address}: other machines would reach it and the port has no authentication; "
                f"use 127.0.0.1:{address.port}, or set health_allow_remote = true"
            )
        for where, table in (
            ("defaults", self.defaults),
            *((f"tables.{name}", table) for name, table in self.tables.items()),
        ):
            try:
                check_with_defaults(table, self.defaults)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return self

    @property
    def migrates_on_start(self) -> bool:
        """Whether pending migrations are applied at start."""
        return self.target.embedded if self.migrate_on_start is None else self.migrate_on_start

    @property
    def log_folders(self) -> list[pathlib.Path]:
        """The folders of the logs, each with one a table: in the data folder, and where they go on when that fails."""
        more = [] if self.wal_second_dir is None else [self.wal_second_dir]
        return [self.data_dir / "wal", *more]

    @property
    def health_address(self) -> Address | None:
        """Host and port of the health server; None for none."""
        return parse_address(self.health_addr) if self.health_addr else None

    def source_of(self, path: tuple[str, ...]) -> str:
        """Where the value of a key came from, such as `("tables", "orders", "linger_ms")`; `default` for a default."""
        return self._trace.source(path) or "default"

    @property
    def unused_variables(self) -> tuple[str, ...]:
        """Environment variables that begin with `RECORDER_` and are no settings."""
        return self._trace.unused

    @property
    def config(self) -> pathlib.Path | None:
        """The settings file that was read; None for none."""
        return self._trace.config

    @property
    def config_hash(self) -> str:
        """16 hex digits that are the same for the same settings; secrets and the run id are left out."""
        values = {entry.key: entry.value for entry in explain(self) if entry.key != "run_id"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def for_table(self, table: Table) -> ResolvedTable:
        """How a table is recorded: the pack's policy, then `defaults`, then the table's own settings.

        Raises:
            SettingsError: they do not go together.
        """
        own = self.tables.get(table.name.lower(), TableSettings())
        resolved = resolve(table.name, table.policy, own, self.defaults, self.unknown_fields)
        wrong = complaint_of(resolved, table.policy.conflate_key)
        groups = resolved.symbol_groups
        if complaint := wrong or groups_complaint(table.policy, groups, symbols=table.has_symbols):
            where = self._trace.nearest_source(("tables", table.name.lower()))
            raise SettingsError(f"{where}: tables.{table.name}: {complaint}")
        return resolved

    def resolve_packs(self, packs: Iterable[Pack]) -> tuple[Pack, ...]:
        """The packs as they are recorded: the policies of their tables have the durability and the symbol groups that
        the settings say.

        To be used wherever packs are loaded, so that all that follows from a table's durability (what is critical,
        what the database syncs, what raises an alarm) or from its groups is read from its policy alone.

        Raises:
            SettingsError: the settings of a table do not go together.
        """
        return tuple(
            dataclasses.replace(pack, tables=tuple(self._resolved(table) for table in pack.tables))
            for pack in packs
        )

    def _resolved(self, table: Table) -> Table:
        said = self.for_table(table)
        policy = dataclasses.replace(
            table.policy, durability=said.durability, symbol_groups=said.symbol_groups
        )
        return dataclasses.replace(table, policy=policy)

    def check_tables(self, known: Iterable[str]) -> None:
        """Refuse settings of tables that no loaded pack has.

        Raises:
            SettingsError: names the table, and the nearest one there is.
        """
        names = sorted(known)
        problems = [
            f"{self._trace.nearest_source(('tables', name))}: tables.{name}: no loaded pack has this table"
            f"{which_table(name, names)}"
            for name in self.tables
            if name not in names
        ]
        if problems:
            raise SettingsError(*problems)

    def __repr__(self) -> str:
        said = ", ".join(
            f"{entry.key}={entry.value!r}" for entry in explain(self) if entry.source != "default"
        )
        return f"Settings({said})"

    __str__ = __repr__
