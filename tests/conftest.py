"""What tests share: the databases they run on, a fresh one for each test, the captures if present, and a clean end.

See `harness.backends` for the databases, and docs/testing.md for how to choose them.
"""

from __future__ import annotations

import os
import pathlib
import signal
import zlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.backends import NAMES, Backend, Backends, Broken, NotHere, Place
from harness.leftovers import Watch

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CAPTURES = pathlib.Path(
    os.environ.get("RECORDER_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data")
)
EMBEDDED = frozenset({"engine", "chdb_path", "embedded"})
"""Fixtures of tests about the engine inside the process."""
EVERYWHERE = ("chdb", "devserver")
"""Backends that need nothing but Python."""
NOT_HERE = "no backend server: "
WATCH = pytest.StashKey[Watch]()
LEFT = pytest.StashKey[list[str]]()


def _chosen(config: pytest.Config) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (config.option.backend or ",".join(NAMES)).split(","))
    if wrong := [name for name in names if name not in NAMES]:
        raise pytest.UsageError(f"--backend: {', '.join(wrong)} is none of {', '.join(NAMES)}")
    return names


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        metavar="NAMES",
        help=f"databases to run tests on, separated by commas: {', '.join(NAMES)} (default: all that are here)",
    )

    parser.addoption(
        "--one-backend",
        action="store_true",
        help="run each test but the contract suites on one database, told by its name, instead of on all",
    )


def pytest_configure(config: pytest.Config) -> None:
    _chosen(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell, which makes all that is started here deaf to Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[WATCH] = Watch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A backend that is not here is one line of the summary, not one a test."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and NOT_HERE in report.longrepr[2]:
        report.longrepr = (__file__, None, report.longrepr[2])
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.config.stash[WATCH].look(item.nodeid)


@pytest.hookimpl(trylast=True)  # after the fixtures of the session were ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    left = [*config.stash.get(LEFT, []), *config.stash[WATCH].end()]
    config.stash[LEFT] = left
    if hasattr(config, "workeroutput"):  # of a worker of pytest-xdist: the main process tells
        config.workeroutput["left"] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended."""
    left = node.config.stash.setdefault(LEFT, [])
    left += getattr(node, "workeroutput", {}).get("left", [])


@pytest.hookimpl(trylast=True)  # near the end of what is printed, where one looks for why it failed
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, []):
        terminalreporter.section("left behind by the tests", red=True)
        for what in left:
            terminalreporter.line(what)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--one-backend` tests are shared out among the databases that every machine has, always the same way."""
    here = [name for name in _chosen(config) if name in EVERYWHERE]
    if not config.option.one_backend or len(here) < 2:
        return
    kept, others = [], []
    for item in items:
        backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")  # type: ignore[attr-defined]
        if backend not in here or not EMBEDDED.isdisjoint(item.fixturenames) or "contract" in item.path.parts:  # type: ignore[attr-defined]
            kept.append(item)
            continue
        law = item.nodeid.replace(backend, "")
        mine = here[zlib.crc32(law.encode()) % len(here)] == backend
        (kept if mine else others).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=others)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What needs a database runs on each that was chosen; what is about the embedded engine, on chDB alone."""
    if "backend" not in metafunc.fixturenames:
        return
    chosen = _chosen(metafunc.config)
    if EMBEDDED.isdisjoint(metafunc.fixturenames):
        metafunc.parametrize("backend", chosen, indirect=True, scope="module")
        return
    reason = "about the embedded engine, and chdb was not chosen"
    chdb = pytest.param("chdb", marks=pytest.mark.skipif("chdb" not in chosen, reason=reason))
    metafunc.parametrize("backend", [chdb], indirect=True, scope="module")


@pytest.fixture(scope="session", autouse=True)
def _watched(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytestconfig.stash[WATCH].folders.append(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """The databases of this session."""
    opened = Backends(tmp_path_factory.mktemp("backends"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest, pytestconfig: pytest.Config, backends: Backends) -> Backend:
    """The database to test on, by turns each of those chosen. Whoever asked for one that is not here fails."""
    try:
        return backends.open(request.param)
    except (NotHere, Broken) as error:
        why = error
    if isinstance(why, NotHere) and not pytestconfig.option.backend:
        pytest.skip(f"{NOT_HERE}{why}")
    pytest.fail(str(why), pytrace=False)


@pytest.fixture
def client(backend: Backend) -> Client:
    """A client of the database, for what tests ask beside the code under test."""
    return backend.client


@pytest.fixture
def database(backend: Backend) -> Iterator[str]:
    """A fresh database, dropped after the test."""
    with backend.fresh_database() as name:
        yield name


@pytest.fixture(scope="session")
def chdb_path(backends: Backends) -> pathlib.Path:
    """The folder of the engine in this process, for tests about that engine."""
    return backends.chdb.path


@pytest.fixture(scope="session")
def engine(backends: Backends) -> Client:
    """A client of the engine in this process, for tests about that engine."""
    return backends.chdb.client


@pytest.fixture
def place(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Place]:
    """A database for commands and other processes of the test to open; none of them has made it yet."""
    with backend.place(tmp_path) as place:
        yield place


@pytest.fixture(scope="session")
def embedded() -> None:
    """For tests about the embedded engine whose database other processes open."""


@pytest.fixture(scope="session")
def captures() -> pathlib.Path:
    """The folder of recorded market data."""
    if not CAPTURES.is_dir():
        pytest.skip(f"no recorded market data at {CAPTURES} (RECORDER_TEST_DATA names another folder)")
    return CAPTURES
