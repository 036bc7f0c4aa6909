"""The databases that tests run on: chDB in this process, `recorder devserver` in another one, a ClickHouse server.

A test that needs a database takes the fixtures `backend`, `client` and `database` and is run on each of them; one that
is about the engine inside the process takes `engine` or `chdb_path`, and runs on chDB alone.

Each backend is opened once a session, when the first test asks for it. What tests make on it are databases named
`recorder_test_<session>_<number>`; each is dropped after its test, and what a session leaves is told at its end.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
import json
import os
import pathlib
import secrets
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recorder.target import parse_target

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from recorder.sink.chdb import ChdbSink
    from recorder.sink.client_sink import ClientSink

NAMES = ("chdb", "devserver", "server")
DEFAULT_IMAGE = "clickhouse/clickhouse-server"
START_S = 60.0

# Asks the kernel to end the server with this process, however that ends.
WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Broken(Exception):  # noqa: N818 - says what is the case
    """A backend that should be here does not answer. The message says which, and what happened."""


class NotHere(Exception):  # noqa: N818 - says what is the case
    """A backend that this machine does not have. The message says what was looked for, and how to have it."""


@dataclass(frozen=True)
class Place:
    """A database that other processes may open, one after the other. It is not made yet."""

    target: str
    database: str

    @property
    def variables(self) -> dict[str, str]:
        """Settings that lead there; a server's database is migrated at start as the embedded one is by default."""
        return {
            "RECORDER_TARGET": self.target,
            "RECORDER_DATABASE": self.database,
            "RECORDER_MIGRATE_ON_START": "true",
        }


class Backend(abc.ABC):
    """One ClickHouse, in whichever way it is reached."""

    name: str
    target: str
    """The URL for `Settings`, without a database. It may have a password in it."""

    def __init__(self) -> None:
        self._prefix = f"recorder_test_{secrets.token_hex(3)}"
        self._numbers = itertools.count(1)

    @property
    def embedded(self) -> bool:
        """Whether it is the engine inside this process."""
        return self.name == "chdb"

    @functools.cached_property
    def client(self) -> Client:
        """For what tests ask beside the code under test, from any thread but one at a time."""
        return self.open_client()

    @abc.abstractmethod
    def open_client(self) -> Client:
        """Another client, for whoever closes it."""

    @abc.abstractmethod
    def sink(self, database: str, **options: Any) -> ClientSink:
        """A sink on the database, not started."""

    @contextlib.contextmanager
    def place(self, folder: pathlib.Path) -> Iterator[Place]:
        """Where processes other than this one may record, gone afterwards."""
        with self.fresh_database(create=False) as database:
            yield Place(self.target, database)

    @contextlib.contextmanager
    def fresh_database(self, *, create: bool = True) -> Iterator[str]:
        """The name of a database of one's own, dropped afterwards; not there yet unless `create`."""
        name = f"{self._prefix}_{next(self._numbers)}"
        if create:
            self.client.command(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.client.command(f"DROP DATABASE IF EXISTS {name} SYNC")

    def left_behind(self) -> list[str]:
        """The databases of this session that are still there."""
        found = self.client.query(
            "SELECT name FROM system.databases WHERE startsWith(name, {p:String})", {"p": self._prefix}
        )
        return [str(row[0]) for row in found.result_rows]

    def close(self) -> None:
        """Release it."""
        if "client" in self.__dict__:
            self.client.close()


class InProcess(Backend):
    """chDB in this process. A process has one engine, so every test works in the same folder."""

    name = "chdb"

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.path = folder / "db"
        self.target = f"chdb://{self.path}"

    def open_client(self) -> Client:
        """See `Backend`."""
        import clickhouse_connect

        return clickhouse_connect.get_client(interface="chdb", path=str(self.path))

    def sink(self, database: str, **options: Any) -> ChdbSink:
        """See `Backend`."""
        from recorder.sink.chdb import ChdbSink

        return ChdbSink(self.path, database, **options)

    @contextlib.contextmanager
    def place(self, folder: pathlib.Path) -> Iterator[Place]:
        """A folder of its own: this process has the session's open, and one process can have it."""
        yield Place(f"chdb://{folder / 'db'}", "default")


class OverHttp(Backend):
    """A server behind a URL."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target

    def open_client(self) -> Client:
        """See `Backend`."""
        import clickhouse_connect

        where = parse_target(self.target)
        ((host, port),) = where.hosts
        return clickhouse_connect.get_client(
            host=host,
            port=port,
            username=where.user or None,
            password=where.password.get_secret_value() if where.password else "",
            secure=where.scheme == "https",
            autogenerate_session_id=False,  # a session takes one statement at a time
        )

    def sink(self, database: str, **options: Any) -> ClientSink:
        """See `Backend`."""
        from recorder.sink.http import HttpSink

        return HttpSink(parse_target(self.target), database, **options)


class DevServer(OverHttp):
    """`recorder devserver`, as a person starts it, on a folder of its own and a port that is free."""

    name = "devserver"

    def __init__(self, folder: pathlib.Path):
        self._log = folder / "devserver.log"
        command = [sys.executable, "-m", "recorder", "devserver", "--json", "--path", str(folder / "db"),
                   "--addr", "127.0.0.1:0"]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WITH_PARENT, *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("RECORDER_")},
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(START_S)
            raise Broken(f"the dev server did not start: {self._tail()}")
        super().__init__(json.loads(line)["url"].rstrip("/"))

    def check(self) -> None:
        """Say so, with its last words, where it has ended."""
        if (code := self._process.poll()) is not None:
            raise Broken(f"the dev server ended with {code}: {self._tail()}")

    def close(self) -> None:
        """End it as Ctrl-C or a supervisor does."""
        super().close()
        self._process.terminate()
        try:
            code = self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Broken(f"the dev server did not end within {START_S:g} s of SIGTERM") from None
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()
        assert code in (0, 143), f"the dev server ended with {code}: {self._tail()}"

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]


class Server(OverHttp):
    """A ClickHouse that is there already, such as `http://user:password@host:8123`. A database in it is not used."""

    name = "server"

    def __init__(self, url: str):
        parts = urllib.parse.urlsplit(url)
        super().__init__(f"{parts.scheme}://{parts.netloc}")


class Container(OverHttp):
    """A ClickHouse server in a container that is removed at the end.

    Raises:
        NotHere: no Docker engine answers.
    """

    name = "server"

    def __init__(self, image: str):
        import docker

        try:
            with contextlib.closing(docker.from_env()) as docker_engine:
                docker_engine.ping()
        except docker.errors.DockerException as error:
            raise NotHere(
                f"CLICKHOUSE_URL is not set, and no Docker engine answers ({str(error).splitlines()[0]})"
            ) from error
        from testcontainers.community.clickhouse import ClickHouseContainer

        self._container = ClickHouseContainer(
            image, username="recorder", password=secrets.token_hex(8), dbname="recorder"
        )
        self._container.start()
        host, port = self._container.get_container_host_ip(), self._container.get_exposed_port(8123)
        super().__init__(f"http://{self._container.username}:{self._container.password}@{host}:{port}")

    def close(self) -> None:
        """Remove the container."""
        super().close()
        self._container.stop()


class Backends:
    """Those of this session, opened as they are asked for."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._opened: dict[str, Backend] = {}
        self._failed: dict[str, NotHere | Broken] = {}

    def open(self, name: str) -> Backend:
        """The backend of this name. What failed once is not tried again.

        Raises:
            NotHere: this machine has none.
            Broken: it should be here, and does not answer.
        """
        if name in self._failed:
            raise self._failed[name]
        if name not in self._opened:
            try:
                backend = self._make(name)
                self._opened[name] = backend
                assert backend.client.server_version
            except NotHere as error:
                self._failed[name] = error
                raise
            except Exception as error:
                self._failed[name] = Broken(f"{name} does not answer: {error}")
                raise self._failed[name] from error
        backend = self._opened[name]
        if isinstance(backend, DevServer):
            backend.check()
        return backend

    @property
    def chdb(self) -> InProcess:
        """The engine in this process."""
        backend = self.open("chdb")
        assert isinstance(backend, InProcess)
        return backend

    def close(self) -> None:
        """Close all, and complain of what tests left in them."""
        left: list[str] = []
        with contextlib.ExitStack() as stack:
            for name, backend in self._opened.items():
                stack.callback(backend.close)
                if name in self._failed:
                    continue
                left += [f"{database} ({name})" for database in backend.left_behind()]
        assert not left, f"databases that tests left behind: {', '.join(left)}"

    def _make(self, name: str) -> Backend:
        folder = self._folder / name
        folder.mkdir()
        if name == "chdb":
            return InProcess(folder)
        if name == "devserver":
            return DevServer(folder)
        if url := os.environ.get("CLICKHOUSE_URL"):
            return Server(url)
        return Container(os.environ.get("CLICKHOUSE_IMAGE", DEFAULT_IMAGE))
