"""Laws of the settings: which source wins, what is refused and in which words, and that secrets stay out."""

from __future__ import annotations

import itertools
import os
import pathlib

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recorder.errors import RecorderError, SettingsError
from recorder.settings import BUILTIN, Settings, TableSettings, process_run_id
from recorder.settings_explain import explain
from schemas.columns import Name, TimeNs
from schemas.policy import Durability, Overflow, Partition, TablePolicy
from schemas.table import Row, Table, table

SECRET = "hunter2-s3cr3t"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("RECORDER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class _Quote(Row):
    ts_local: TimeNs = 0
    run_id: Name = ""
    symbol: Name = ""


def _table(
    name: str = "quotes",
    durability: Durability = Durability.MEMORY,
    overflow: Overflow = Overflow.DROP_OLDEST,
    conflate_key: tuple[str, ...] = (),
) -> Table:
    return table(
        name,
        _Quote,
        TablePolicy(
            durability=durability,
            overflow=overflow,
            partition=Partition.DAY,
            order_by=("ts_local",),
            keep_days=90,
            conflate_key=conflate_key,
        ),
    )


def _error(**values: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    return str(caught.value)


# -- precedence --

SOURCES = ("base", "file", "environment", "argument")


@pytest.mark.parametrize(
    "said_by", [tuple(c) for n in range(len(SOURCES) + 1) for c in itertools.combinations(SOURCES, n)]
)
@pytest.mark.parametrize("key", ["insert_timeout_s", "tables.market_data.linger_ms", "defaults.batch_rows"])
def test_strongest_source_wins_and_is_named(
    said_by: tuple[str, ...], key: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever sources set a value, the strongest of them is in force, and `explain` names that one."""
    number = {name: 11 + i for i, name in enumerate(SOURCES)}
    *parents, leaf = key.split(".")

    def nested(value: int) -> dict[str, object]:
        values: dict[str, object] = {leaf: value}
        for parent in reversed(parents):
            values = {parent: values}
        return values

    if "file" in said_by:
        head = f"[{'.'.join(parents)}]\n" if parents else ""
        (tmp_path / "recorder.toml").write_text(f"{head}{leaf} = {number['file']}\n")
    if "environment" in said_by:
        monkeypatch.setenv("RECORDER_" + key.replace(".", "__").upper(), str(number["environment"]))
    settings = Settings(
        base=nested(number["base"]) if "base" in said_by else None,
        **(nested(number["argument"]) if "argument" in said_by else {}),
    )
    entry = {entry.key: entry for entry in explain(settings)}.get(key)
    if not said_by:
        assert entry is None or entry.source == "default"
        return
    assert entry is not None
    assert entry.value == number[said_by[-1]]
    assert {"base": "this command", "file": "recorder.toml", "argument": "argument"}.get(
        said_by[-1], "environment RECORDER_" + key.replace(".", "__").upper()
    ) == entry.source


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)
@given(
    file=st.dictionaries(
        st.sampled_from(["fills", "orders", "market_data"]), st.integers(1, 999), max_size=3
    ),
    environment=st.dictionaries(
        st.sampled_from(["fills", "orders", "market_data"]), st.integers(1, 999), max_size=3
    ),
    argument=st.dictionaries(
        st.sampled_from(["FILLS", "Orders", "market_data"]), st.integers(1, 999), max_size=3
    ),
)
def test_tables_merge_by_name_without_case(
    file: dict[str, int], environment: dict[str, int], argument: dict[str, int], tmp_path: pathlib.Path
) -> None:
    """Tables from all sources add up; of one table the strongest source wins, however its name is written."""
    toml = tmp_path / "some.toml"
    toml.write_text(
        "".join(f"[tables.{name.title()}]\nlinger_ms = {value}\n" for name, value in file.items())
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"RECORDER_TABLES__{name.upper()}__LINGER_MS", str(value))
        settings = Settings(
            config=toml, tables={name: {"linger_ms": value} for name, value in argument.items()}
        )
    expected = {**file, **environment, **{name.lower(): value for name, value in argument.items()}}
    assert {name: entry.linger_ms for name, entry in settings.tables.items()} == expected


def test_profile_is_weaker_than_every_source_and_chosen_by_any(tmp_path: pathlib.Path) -> None:
    """A profile changes defaults only: what a file says stands, and a file may choose the profile."""
    (tmp_path / "recorder.toml").write_text('profile = "production"\nlog_format = "console"\n')
    settings = Settings()
    assert settings.profile == "production"
    assert settings.log_format == "console"
    assert settings.health_addr == "127.0.0.1:9477"
    assert {e.key: e.source for e in explain(settings)}["health_addr"] == "profile production"
    assert Settings(profile="dev", health_addr="off").health_addr is None


def test_config_variable_names_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RECORDER_CONFIG replaces `recorder.toml`, and an explicit file replaces both."""
    for name, value in (("recorder.toml", 1), ("b.toml", 2), ("c.toml", 3)):
        (tmp_path / name).write_text(f"retry_max_s = {value}\n")
    assert Settings().retry_max_s == 1
    monkeypatch.setenv("RECORDER_CONFIG", "b.toml")
    assert Settings().retry_max_s == 2
    assert Settings(config="c.toml").retry_max_s == 3


def test_models_as_arguments_say_only_what_was_set() -> None:
    """A TableSettings object given as an argument leaves what it does not set to weaker sources."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECORDER_TABLES__FILLS__BATCH_ROWS", "77")
        settings = Settings(tables={"fills": TableSettings(linger_ms=5)})
    assert (settings.tables["fills"].batch_rows, settings.tables["fills"].linger_ms) == (77, 5)


# -- derived values --


def test_defaults_of_places(tmp_path: pathlib.Path) -> None:
    """The database lies under the data folder unless a target is named, always by an absolute path."""
    assert str(Settings().target) == f"chdb://{tmp_path}/data/db"
    assert str(Settings(data_dir="elsewhere").target) == f"chdb://{tmp_path}/elsewhere/db"
    assert Settings(target="chdb://rel/db?database=mine").target.path == f"{tmp_path}/rel/db"
    assert Settings(target="chdb://rel/db?database=mine").database == "mine"
    assert Settings(target="chdb:///x?database=mine", database="other").database == "other"
    assert Settings().database == "default"


def test_migrates_by_itself_only_when_embedded() -> None:
    """Unset, migrations run at start for the embedded engine and not for servers; set, the setting counts."""
    assert Settings().migrates_on_start
    assert not Settings(target="http://h:8123").migrates_on_start
    assert Settings(target="http://h:8123", migrate_on_start=True).migrates_on_start


def test_run_id_is_one_a_process() -> None:
    """All settings of a process share a random run id until one is set."""
    assert Settings().run_id == Settings().run_id == process_run_id()
    assert Settings(run_id="mine").run_id == "mine"


def test_config_hash_follows_what_matters() -> None:
    """The same settings hash the same in every run; a changed one changes it; run id and passwords do not."""
    assert Settings(run_id="a").config_hash == Settings(run_id="b").config_hash
    assert Settings().config_hash != Settings(retry_max_s=11).config_hash
    one, two = (Settings(target=f"http://u:{p}@h").config_hash for p in ("p1", "p2"))
    assert one == two


def test_lists_and_sizes_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs are separated by commas or a JSON list, sizes may have units, `forever` is days, empty is unset."""
    monkeypatch.setenv("RECORDER_PACKS", "core, mine")
    monkeypatch.setenv("RECORDER_DEFAULTS__QUEUE_BYTES", "32 MiB")
    monkeypatch.setenv("RECORDER_DEFAULTS__KEEP_DAYS", "Forever")
    monkeypatch.setenv("RECORDER_TABLES__FILLS__KEEP_DAYS", "30")
    monkeypatch.setenv("RECORDER_RETRY_MAX_S", "")
    settings = Settings()
    assert settings.packs == ("core", "mine")
    assert settings.defaults.queue_bytes == 32 * 1024 * 1024
    assert settings.for_table(_table()).keep_days is None
    assert settings.for_table(_table("fills")).keep_days == 30
    assert settings.retry_max_s == 10
    monkeypatch.setenv("RECORDER_PACKS", '["core", "mine.tables:PACK"]')
    assert Settings().packs == ("core", "mine.tables:PACK")


def test_normaliser_settings_go_to_their_normaliser() -> None:
    """`of` gives a normaliser its table, our own checked and a stranger's as it was written; 0 is off."""
    settings = Settings(normalisers={"binance": {"sample_ms": 0, "quotes": "price"}, "mine": {"depth": 3}})
    assert settings.normalisers.of("binance") == {
        "quotes": "price",
        "sample_ms": None,
        "depth_levels": 5,
        "account_id": "",
        "venue": None,
        "snapshot_interval_s": 5.0,
    }
    assert settings.normalisers.of("mine") == {"depth": 3}
    assert settings.normalisers.of("other") == {}
    assert Settings(normalisers={"binance": {"sample_ms": 20}}).normalisers.of("binance")["sample_ms"] == 20


# -- one table --


def test_table_falls_back_to_defaults_then_pack() -> None:
    """A table's own setting, then `defaults`, then the pack's policy, then what is built in."""
    settings = Settings(
        defaults={"linger_ms": 100, "batch_rows": 500},
        tables={"quotes": {"linger_ms": 50, "overflow": "sample"}},
    )
    resolved = settings.for_table(_table())
    assert (resolved.linger_ms, resolved.batch_rows, resolved.overflow) == (50, 500, Overflow.SAMPLE)
    assert (resolved.durability, resolved.keep_days, resolved.enabled) == (Durability.MEMORY, 90, True)
    assert resolved.queue_rows == BUILTIN["queue_rows"]
    assert all(getattr(resolved, key) is not None for key in BUILTIN)


def test_what_was_not_set_gives_way() -> None:
    """A longer linger stretches the unset maximum; a small queue shrinks the unset batch."""
    resolved = Settings(defaults={"linger_ms": 5_000, "queue_rows": 100}).for_table(_table())
    assert (resolved.linger_max_ms, resolved.batch_rows) == (5_000, 100)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"overflow": "spill"}, {}, "durability memory has none"),
        ({"overflow": "conflate"}, {}, "names no key"),
        (
            {"durability": "memory"},
            {"durability": Durability.WAL, "overflow": Overflow.SPILL},
            "overflow spill",
        ),
        ({"batch_rows": 10, "queue_rows": 5}, {}, "must not be above queue_rows"),
    ],
)
def test_settings_that_do_not_go_with_the_pack(
    said: dict[str, object], kind: dict[str, object], words: str
) -> None:
    """What can only be told with the pack's policy at hand is refused when the table is resolved."""
    settings = Settings(tables={"quotes": said})
    with pytest.raises(SettingsError, match=words) as caught:
        settings.for_table(_table(**kind))  # type: ignore[arg-type]
    assert "tables.quotes" in str(caught.value)


def test_conflate_with_a_key_is_fine() -> None:
    """Conflation is accepted where the pack names a key."""
    resolved = Settings(tables={"quotes": {"overflow": "conflate"}}).for_table(
        _table(conflate_key=("symbol",))
    )
    assert resolved.overflow is Overflow.CONFLATE


def test_tables_nobody_has() -> None:
    """Settings of a table that no pack has are refused with the nearest name."""
    with pytest.raises(
        SettingsError, match=r'tables\.marketdata: no loaded pack.*did you mean "market_data"'
    ):
        Settings(tables={"marketdata": {"linger_ms": 1}}).check_tables(["fills", "market_data"])
    with pytest.raises(
        SettingsError, match="there are fills, orders: correct the name, or add the pack that has it"
    ):
        Settings(tables={"zzz": {"linger_ms": 1}}).check_tables(["orders", "fills"])
    Settings(tables={"fills": {"linger_ms": 1}}).check_tables(["fills"])


# -- refusals --


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"targt": "x"}, 'unknown key targt; did you mean "target"'),
        (
            {"tables": {"fills": {"lingr_ms": 1}}},
            'unknown key tables.fills.lingr_ms; did you mean "linger_ms"',
        ),
        ({"defaults": {"batch_rows": "many"}}, "defaults.batch_rows: must be a whole number, not 'many'"),
        ({"defaults": {"batch_rows": 1.5}}, "defaults.batch_rows: must be a whole number, not 1.5"),
        ({"defaults": {"batch_rows": True}}, "defaults.batch_rows: must be a number, not a truth value"),
        ({"defaults": {"batch_rows": -1}}, "defaults.batch_rows: must be greater than 0, not -1"),
        ({"defaults": {"linger_ms": float("nan")}}, "defaults.linger_ms: must be greater than 0, not nan"),
        ({"insert_timeout_s": 0}, "insert_timeout_s: must be greater than 0, not 0"),
        (
            {"defaults": {"low_watermark": 0.9}},
            "defaults: low_watermark 0.9 must be below high_watermark 0.8",
        ),
        (
            {"defaults": {"high_watermark": 0.7}, "tables": {"fills": {"low_watermark": 0.75}}},
            "tables.fills: low_watermark 0.75 must be below high_watermark 0.7",
        ),
        ({"tables": {"fills": {"overflow": "block"}}}, "tables.fills: overflow block needs overflow_second"),
        ({"tables": {"fills": {"overflow_second": "block"}}}, "cannot be block again"),
        ({"tables": {"fills": {"overflow": "drop"}}}, "'drop_oldest'"),
        ({"tables": {"fills": {"keep_days": 0}}}, '"forever" to keep every row'),
        ({"tables": {"fills": {"keep_days": 36_500}}}, "keep_days: must be at most 20,000 days"),
        ({"tables": {"fills": {"keep_days": "soon"}}}, 'must be a number of days or "forever"'),
        ({"tables": {"fills": 5}}, "tables.fills: must be a table of keys, not 5"),
        ({"defaults": {"queue_bytes": "big"}}, 'as in "16 MiB"'),
        ({"retry_initial_s": 20}, "retry_initial_s 20 must not be above retry_max_s 10"),
        ({"health_addr": "0.0.0.0:1"}, "health_allow_remote"),
        ({"health_addr": "somewhere"}, "is no address"),
        ({"packs": ""}, "packs: must name at least one"),
        ({"packs": "[core"}, "is no JSON list"),
        ({"database": "a;b"}, "is no database name"),
        ({"target": "postgres://x"}, "is no target"),
        ({"target": "chdb://"}, "has no path"),
        ({"target": "chdb:///x?user=1"}, "only ?database= may follow"),
        ({"profile": "prod"}, "profile: must be 'dev' or 'production', not 'prod'"),
        ({"normalisers": {"binance": {"quotes": "size"}}}, "normalisers.binance.quotes: must be"),
    ],
)
def test_refusals_say_where_what_and_what_to_do(values: dict[str, object], words: str) -> None:
    """Every value that cannot be is refused in one line that names its source and key."""
    text = _error(**values)
    assert words in text
    assert text.startswith("argument: ")
    assert "\n" not in text


def test_every_problem_has_a_line_of_its_own() -> None:
    """Several wrong values are told at once."""
    with pytest.raises(SettingsError) as caught:
        Settings(insert_timeout_s=0, shutdown_timeout_s=0)
    assert len(caught.value.problems) == 2
    assert isinstance(caught.value, RecorderError)


def test_environment_errors_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable is named as it stands in the environment."""
    monkeypatch.setenv("RECORDER_TABLES__FILLS__LINGER_MS", "soon")
    assert _error().startswith(
        "environment RECORDER_TABLES__FILLS__LINGER_MS: tables.fills.linger_ms: must be"
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RECORDER_TARGETT", "x", "did you mean RECORDER_TARGET?"),
        ("RECORDER_TABLES_FILLS_LINGER_MS", "5", "two underscores"),
        ("RECORDER_TABLES", "fills", "is not JSON"),
        ("RECORDER_TABLES__FILLS", "5", "must be a table of keys"),
    ],
)
def test_misspelt_variables(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that nearly is a setting is refused instead of ignored."""
    monkeypatch.setenv(name, value)
    text = _error()
    assert words in text
    assert name in text


def test_foreign_variables_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes sets for a service named `recorder` is no setting; other strangers are listed."""
    monkeypatch.setenv("RECORDER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("RECORDER_PORT_8080_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("RECORDER_ZZZ_QQQ", "1")
    assert Settings().unused_variables == ("RECORDER_ZZZ_QQQ",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = = 1", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 at byte 0"),
        (b"lingr_ms = 1", "unknown key lingr_ms"),
        (b"[tables.fills]\nlinger_ms = -1", "tables.fills.linger_ms: must be greater than 0"),
    ],
)
def test_files_that_cannot_be(content: bytes, words: str, tmp_path: pathlib.Path) -> None:
    """A settings file that cannot be used is named in the error."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    text = _error(config=path)
    assert words in text
    assert text.startswith(str(path))


def test_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    """A named file that is missing, or a folder, is an error; a missing `recorder.toml` is none."""
    assert "there is no such settings file" in _error(config=tmp_path / "none.toml")
    assert "cannot be read" in _error(config=tmp_path)
    Settings()


# -- secrets --


def _settings_or_error(given: dict[str, str]) -> tuple[Settings | None, SettingsError | None]:
    try:
        return Settings(**given), None
    except SettingsError as error:
        return None, error


@pytest.mark.parametrize(
    "target",
    [
        f"http://user:{SECRET}@host:8123/db",
        f"https://user:{SECRET}@a:1,b:2",
        f"http://user:{SECRET}@host:notaport",
        f"http://user:{SECRET}/x#y@host:x",
        f"ftp://user:{SECRET}@host",
        f"http://host:8123?password={SECRET}",
        f"http://:{SECRET}@[::1",
    ],
)
@pytest.mark.parametrize("source", ["argument", "environment", "file"])
def test_passwords_are_never_shown(
    target: str, source: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No repr, text, explanation or error shows the password of a target, well-formed or not."""
    given = {}
    if source == "argument":
        given = {"target": target}
    elif source == "environment":
        monkeypatch.setenv("RECORDER_TARGET", target)
    else:
        (tmp_path / "recorder.toml").write_text(f'target = "{target}"\n')
    settings, failure = _settings_or_error(given)
    if settings is None:
        assert failure is not None
        # Nothing that a traceback would print beside it.
        assert failure.__cause__ is None
        assert failure.__suppress_context__
        seen = [str(failure), repr(failure), *failure.problems]
    else:
        assert settings.target.password is not None
        assert settings.target.password.get_secret_value() == SECRET
        seen = [
            repr(settings),
            str(settings),
            str(settings.target),
            repr(settings.target),
            repr(explain(settings)),
        ]
        seen += [str(settings.model_dump()), settings.model_dump_json()]
    assert all(SECRET not in text for text in seen)


def test_settings_cannot_be_changed() -> None:
    """Settings are values: whoever holds them can rely on them."""
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.retry_max_s = 1
