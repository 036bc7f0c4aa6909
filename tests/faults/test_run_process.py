"""`recorder run` as a process: signals, kills, and what is not there when it starts."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import zmq
from harness.backends import Backend, Place
from harness.dev_server import DevServerProcess, Fault
from harness.ingest_files import run_command
from harness.publishing import Published, PublishingProcess
from harness.recorders import order, wait_until
from harness.running import RunningRecorder

from recorder import Publisher
from recorder.bus.base import Encoding

LOST = "rows were lost at shutdown"
COMES_AGAIN = "messages were not acknowledged: none is lost, their bus delivers them again"
EXACT = ("inserted", "pending", "shed", "dead_lettered", "duplicates_skipped", "expired")


@pytest.fixture
def place(backend: Backend, tmp_path: pathlib.Path) -> Iterator[Place]:
    """A database for the recorder's process alone."""
    with backend.place(tmp_path) as found:
        yield found


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[DevServerProcess]:
    """A server under control, not started."""
    found = DevServerProcess(tmp_path / "server")
    yield found
    found.close()


def asked(folder: pathlib.Path, place: Place, sql: str) -> list[dict[str, object]]:
    """What the database says, by the command, after the recorder has ended."""
    found = run_command(
        "--data-dir", folder / "data", "query", "--format", "jsonl", sql, cwd=folder, **place.variables
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def numbers(folder: pathlib.Path, place: Place) -> list[int]:
    """The numbers of all rows of `orders`, in order, each as often as it is there."""
    found = asked(folder, place, "SELECT toUInt64(client_order_id) AS n FROM orders ORDER BY n")
    return [int(str(row["n"])) for row in found]


def assert_exact(recorder: RunningRecorder) -> None:
    """Every row of every table is accounted for."""
    for table, counts in recorder.status()["balance"].items():
        assert counts["received"] == sum(counts[name] for name in EXACT), (table, counts)


def assert_all_there(published: Published, found: list[int]) -> None:
    """What the publisher took is in the table, each row once."""
    assert published.acknowledged
    assert found == published.accepted()


def test_sigterm_loses_no_row(place: Place, tmp_path: pathlib.Path) -> None:
    """Stopped with rows under way it ends with 0, and the next run has what the first one had not acknowledged."""
    recorder = RunningRecorder(tmp_path, **place.variables)
    with recorder, PublishingProcess(recorder.bus_url, rows_per_s=5_000) as publishing:
        recorder.ready()
        wait_until(lambda: recorder.rows("orders") > 2_000, "rows")
        assert recorder.stop() == 0
        assert recorder.events("stopped")[-1]["rows_lost"] == 0
        recorder.start().ready(2)
        wait_until(lambda: recorder.rows("orders") > 2_000, "rows of the second run")
        published = publishing.finish()
        wait_until(lambda: recorder.rows("orders", "pending") == 0, "all resolved")
        assert_exact(recorder)
        assert recorder.stop(signal.SIGINT) == 0
    assert_all_there(published, numbers(tmp_path, place))


def test_a_killed_recorder_gets_its_rows_again_and_records_them_once(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """SIGKILL with rows under way, several times: what the publisher sends again is in the table once."""
    recorder = RunningRecorder(tmp_path, **place.variables)
    with recorder, PublishingProcess(recorder.bus_url, rows_per_s=5_000) as publishing:
        for run in range(1, 4):
            recorder.ready(run)
            wait_until(lambda: recorder.rows("orders") > 1_000, "rows")
            recorder.kill()
            recorder.start()
        recorder.ready(4)
        published = publishing.finish()
        wait_until(lambda: recorder.rows("orders", "pending") == 0, "all resolved")
        assert_exact(recorder)
        assert recorder.stop() == 0
    assert_all_there(published, numbers(tmp_path, place))


def test_two_buses_of_which_one_is_dead(place: Place, tmp_path: pathlib.Path) -> None:
    """The one goes on; the other is told to be down and why, and comes up when it can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        dead = f"zmq://127.0.0.1:{taken.getsockname()[1]}"
        alive = f"zmq://{tmp_path}/bus.sock"
        with RunningRecorder(tmp_path, bus=(dead, alive), **place.variables) as recorder:
            recorder.started()
            with Publisher(alive) as publisher:
                assert publisher.publish("orders", order(1, client_order_id="1"))
                assert publisher.flush(60)
            wait_until(lambda: recorder.rows("orders") == 1)  # it was acknowledged when it was on the log
            with urllib.request.urlopen(f"{recorder.health}/metrics", timeout=10) as answer:
                assert 'recorder_loop_stalls_total{loop="service"} 0.0' in answer.read().decode(), (
                    "it is watched"
                )
            (reason,) = recorder.reasons() or [""]
            assert dead in reason
            assert "is down" in reason
            told = run_command("status", "--url", recorder.health, cwd=tmp_path)
            assert told.returncode == 3
            assert "NOT READY" in told.stdout
            taken.close()
            assert not recorder.events("ready")
            wait_until(lambda: recorder.reasons() == [], "the other bus")
            recorder.ready()
            with Publisher(dead) as publisher:
                assert publisher.publish("orders", order(2, client_order_id="2"))
                assert publisher.flush(60)
            assert recorder.stop() == 0
    assert numbers(tmp_path, place) == [1, 2]


def test_bad_messages_cost_a_dead_letter_each_and_are_acknowledged(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """Bytes that are no row come between good ones: all are acknowledged, and the bytes are kept."""
    with RunningRecorder(tmp_path, **place.variables) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url) as publisher:
            for n in range(50):
                assert publisher.publish("orders", order(n, client_order_id=str(n)))
                if n % 10 == 0:
                    assert publisher.publish_raw("orders", b"\xff{%d" % n, Encoding.JSON)
            assert publisher.flush(60)
        assert recorder.bus()["undecodable"] == 5
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(50))
    letters = asked(
        tmp_path,
        place,
        "SELECT toString(reason) AS r, hex(payload) AS p, origin AS o FROM dead_letters ORDER BY p",
    )
    assert [(row["r"], row["p"]) for row in letters] == [
        ("not_json", (b"\xff{%d" % n).hex().upper()) for n in range(0, 50, 10)
    ]
    assert {str(row["o"]).rsplit(" ", 1)[0] for row in letters} == {f"{recorder.bus_url} orders"}


def test_a_file_that_is_published_faster_than_it_goes_in_loses_nothing(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """A queue of far fewer rows than the bus's window: the bus keeps the rest, and nothing is shed."""
    lines = [json.dumps(order(n, client_order_id=str(n))) for n in range(20_000)]
    (tmp_path / "rows.ndjson").write_text("\n".join(lines))
    small = {"RECORDER_TABLES__ORDERS__QUEUE_ROWS": "4000", "RECORDER_TABLES__ORDERS__BATCH_ROWS": "500"}
    with RunningRecorder(tmp_path, **small, **place.variables) as recorder:
        recorder.ready()
        told = run_command(
            "publish", "--bus", recorder.bus_url, "--topic", "orders", "--json", "rows.ndjson", cwd=tmp_path
        )
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["shed_messages"] == 0
        assert recorder.rows("orders", "shed") == 0
        assert_exact(recorder)
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(20_000))


def test_sighup_changes_what_may_change_and_keeps_the_old_settings_where_the_new_are_wrong(
    place: Place, tmp_path: pathlib.Path
) -> None:
    """A topic, a linger and the log level change live; what needs a restart is named; wrong settings change nothing."""
    config = tmp_path / "settings.toml"
    config.write_text("[tables.orders]\nlinger_ms = 5\n")
    with RunningRecorder(tmp_path, RECORDER_CONFIG=str(config), **place.variables) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url) as publisher:
            config.write_text(
                'log_level = "debug"\nshutdown_timeout_s = 20.5\n'
                '[tables.orders]\nlinger_ms = 7\n[topics]\n"o.*" = "orders"\n'
            )
            recorder.send(signal.SIGHUP)
            told = recorder.wait_event("settings read again")
            assert set(told["changed"]) == {"log_level", "tables.orders.linger_ms", "topics"}
            assert told["needs_restart"] == ["shutdown_timeout_s"]
            assert publisher.publish("o.new", order(1, client_order_id="1"))
            assert publisher.flush(60)
            for wrong in ("linger_ms = 7\n", '[topics]\n"o.*" = "oders"\n', "this is no TOML"):
                config.write_text(wrong)
                count = len(recorder.events("settings were read again and are wrong; the old ones stay"))
                recorder.send(signal.SIGHUP)
                recorder.wait_event("settings were read again and are wrong; the old ones stay", count + 1)
            assert publisher.publish("o.new", order(2, client_order_id="2"))
            assert publisher.flush(60)
            config.write_text("[tables.orders]\nenabled = false\n")
            recorder.send(signal.SIGHUP)
            recorder.wait_event("settings read again", 2)
            assert publisher.publish("orders", order(3, client_order_id="3"))
            assert publisher.flush(60)
        assert recorder.status()["tables"]["orders"]["filtered_rows"] == 1
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == [1, 2]


def test_it_starts_before_its_database_and_goes_on_when_that_comes(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Nobody answers: it says so, takes rows, acknowledges none without a log, and has them in the table once somebody
    does.
    """
    place = Place(server.url, "trading")
    with RunningRecorder(tmp_path, RECORDER_WAL="false", **place.variables) as recorder:
        recorder.started()
        assert (
            "127.0.0.1"
            in recorder.wait_event("no contact with the database, trying on; rows wait in memory")["why"]
        )
        (reason,) = recorder.reasons() or [""]
        assert "no contact with the database" in reason
        with Publisher(recorder.bus_url) as publisher:
            for n in range(100):
                assert publisher.publish("orders", order(n, client_order_id=str(n)))
            wait_until(lambda: recorder.rows("orders", "pending") == 100, "rows taken")
            assert publisher.stats().acked == 0
            server.start()
            assert publisher.flush(60)
        wait_until(lambda: recorder.reasons() == [], "readiness")
        recorder.ready()
        assert recorder.rows("orders") == 100
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(100))


def test_it_acknowledges_what_is_on_its_log_before_there_is_a_database(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Killed before anybody answers, it has everything in the table after its next start, once."""
    place = Place(server.url, "trading")
    with RunningRecorder(tmp_path, **place.variables) as recorder:
        recorder.started()
        with Publisher(recorder.bus_url) as publisher:
            for n in range(100):
                assert publisher.publish("orders", order(n, client_order_id=str(n)))
            assert publisher.flush(60)
            recorder.kill()
            server.start()
            recorder.start().ready()
            assert publisher.publish("orders", order(100, client_order_id="100"))
            assert publisher.flush(60)
        wait_until(lambda: recorder.rows("orders") == 101, "all rows")
        assert_exact(recorder)
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(101))


def test_it_stops_without_ever_having_had_a_database(
    tmp_path: pathlib.Path, server: DevServerProcess
) -> None:
    """What it took, without a log, is not acknowledged; it ends at once and with 0."""
    with RunningRecorder(
        tmp_path, RECORDER_WAL="false", **Place(server.url, "trading").variables
    ) as recorder:
        recorder.started()
        with Publisher(recorder.bus_url, close_timeout_s=0.0, outlive_s=0.0) as publisher:
            assert publisher.publish("orders", order(1))
            wait_until(lambda: recorder.rows("orders", "pending") == 1, "row taken")
            assert recorder.stop() == 0
            assert publisher.stats().acked == 0
        assert (
            recorder.events("stopped")[0]["unacknowledged"],
            recorder.events("stopped")[0]["rows_lost"],
        ) == (1, 0)
        assert recorder.events(COMES_AGAIN)[0]["rows"] == 1
        assert not recorder.events(LOST), "the bus has it"


def test_tables_that_are_not_there_are_one_line_and_hold_up_no_exit(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """Migrations were not run: the remedy is told once, by /readyz too; nothing but its own rows waits at the end."""
    server.start()
    unmigrated = Place(server.url, "default").variables | {"RECORDER_MIGRATE_ON_START": "false"}
    with RunningRecorder(
        tmp_path, RECORDER_WAL="false", RECORDER_SHUTDOWN_TIMEOUT_S="600", **unmigrated
    ) as recorder:
        recorder.started()
        wait_until(lambda: bool(recorder.events("alarm raised")), "the reason")
        (reason,) = recorder.reasons() or [""]
        assert "orders" in reason
        assert "run recorder migrate up" in reason
        assert recorder.stop() == 0
        (told,) = [
            line
            for line in recorder.events()
            if "migrate up" in json.dumps(line) and line["level"] == "error"
        ]
        assert {"orders", "fills", "recorder_gaps"} < set(told["tables"])
        (lost,) = recorder.events("what the recorder had to say of itself was lost at shutdown")
        assert lost["rows"]["recorder_runs"] == 1
        assert "migrate up" in lost["why"]
        assert not recorder.events("ready")
        (stopped,) = recorder.events("stopped")
        assert (stopped["rows_lost"], stopped["unacknowledged"]) == (0, 0)


def test_it_is_ready_once_its_tables_are_there(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """Somebody runs the migrations beside it: it goes on by itself, and says so then."""
    server.start()
    place = Place(server.url, "default")
    with RunningRecorder(tmp_path, **(place.variables | {"RECORDER_MIGRATE_ON_START": "false"})) as recorder:
        recorder.started()
        with Publisher(recorder.bus_url) as publisher:
            assert publisher.publish("orders", order(1, client_order_id="1"))
            migrated = run_command("migrate", "up", cwd=tmp_path, **place.variables)
            assert migrated.returncode == 0, migrated.stderr
            recorder.ready()
            assert publisher.flush(60)
        assert recorder.reasons() == []
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == [1]


def test_a_second_signal_ends_the_flush(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """With an insert that hangs, the first SIGTERM waits for it and the second does not; the exit code says so."""
    server.start()
    place = Place(server.url, "trading")
    with RunningRecorder(tmp_path, RECORDER_SHUTDOWN_TIMEOUT_S="600", **place.variables) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url, close_timeout_s=0.0, outlive_s=0.0) as publisher:
            server.arm(Fault("before", "hang", table="orders"))
            assert publisher.publish("orders", order(1))
            server.wait_until(hanging=1)
            recorder.send(signal.SIGTERM)
            recorder.wait_event("flushing")
            assert recorder.process is not None
            assert recorder.process.poll() is None
            recorder.send(signal.SIGTERM)
            assert recorder.wait() == 143


def test_it_stops_in_its_time_though_an_insert_hangs(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """What is not in by then, without a log, was not acknowledged: the next run gets it again, and has it once."""
    server.start()
    place = Place(server.url, "trading")
    with RunningRecorder(
        tmp_path, RECORDER_WAL="false", RECORDER_SHUTDOWN_TIMEOUT_S="1.5", **place.variables
    ) as recorder:
        recorder.ready()
        with Publisher(recorder.bus_url) as publisher:
            server.arm(Fault("before", "hang", table="orders"))
            for n in range(10):
                assert publisher.publish("orders", order(n, client_order_id=str(n)))
            server.wait_until(hanging=1)
            assert recorder.stop() == 0
            stopped = recorder.events("stopped")[-1]
            assert stopped["unacknowledged"] == publisher.stats().waiting == 10
            assert (stopped["rows_lost"], recorder.events(COMES_AGAIN)[0]["rows"]) == (0, 10)
            assert not recorder.events(LOST)
            server.disarm()
            recorder.start().ready(2)
            assert publisher.flush(60)
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(10))


def test_rows_of_a_bus_that_repeats_nothing_are_lost_at_the_end(
    server: DevServerProcess, tmp_path: pathlib.Path
) -> None:
    """What is not in when time is over nobody has any more: it is told, table by table, and the exit code says so."""
    server.start()
    place = Place(server.url, "trading")
    plain = zmq.Context.instance().socket(zmq.PUB)
    with contextlib.closing(plain):
        port = plain.bind_to_random_port("tcp://127.0.0.1")
        once = f"zmq+sub://127.0.0.1:{port}"
        again = f"zmq://{tmp_path}/bus.sock"
        settings = place.variables | {"RECORDER_SHUTDOWN_TIMEOUT_S": "1.5", "RECORDER_WAL": "false"}
        with RunningRecorder(tmp_path, bus=(once, again), **settings) as recorder:
            recorder.ready()
            server.arm(Fault("before", "hang", table="orders"))
            with Publisher(again, close_timeout_s=0.0, outlive_s=0.0) as publisher:
                assert publisher.publish("fills", {"no_such_column": 1})

                def taken() -> bool:
                    plain.send_multipart([b"orders", json.dumps(order(1)).encode()])
                    return recorder.rows("orders", "pending") >= 5

                wait_until(taken, "rows")
                assert recorder.stop() == 1
        guarantees = [event["guarantee"] for event in recorder.events("subscribed")]
        assert sorted(guarantees) == ["at-least-once", "at-most-once"], "each bus says once what it promises"
        (told,) = recorder.events(LOST)
        (stopped,) = recorder.events("stopped")
        assert told["table"] == "orders"
        assert stopped["rows_lost"] == told["rows"] >= 5
        assert stopped["unacknowledged"] == 0
        assert not recorder.events(COMES_AGAIN)


def test_a_query_over_serve_that_will_not_end_does_not_hold_up_the_exit(tmp_path: pathlib.Path) -> None:
    """The process ends by itself with its exit code, its log complete, though the interpreter could not."""
    program = """
import sys, threading
from recorder.cli import main
from recorder.devserver.server import DevServer

close = DevServer.close
async def stuck(self):
    await close(self)
    threading.Thread(target=threading.Event().wait).start()  # the interpreter's exit would wait for it for ever
    return False
DevServer.close = stuck
main()
"""
    recorder = RunningRecorder(tmp_path, "--serve", "127.0.0.1:0")
    recorder.command = (sys.executable, "-c", program)
    with recorder:
        recorder.ready()
        assert recorder.stop() == 0
        assert recorder.events("stopped")
        assert "would not end" in recorder.log.read_text()


def test_the_supervisor_hears_when_it_is_ready_reloads_and_stops(tmp_path: pathlib.Path) -> None:
    """In this order, and that all is well in between."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(60)

        def heard(word: bytes) -> None:
            while word not in supervisor.recv(4_096):
                pass

        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with RunningRecorder(tmp_path, **told) as recorder:
            heard(b"READY=1")
            heard(b"WATCHDOG=1")
            recorder.send(signal.SIGHUP)
            heard(b"RELOADING=1")
            heard(b"READY=1")
            recorder.send(signal.SIGTERM)
            heard(b"STOPPING=1")
            assert recorder.wait() == 0


def test_one_held_table_does_not_stop_the_others(server: DevServerProcess, tmp_path: pathlib.Path) -> None:
    """A table that refuses its rows is held and named; rows of another are acknowledged meanwhile, and none is lost."""
    server.start()
    place = Place(server.url, "trading")
    with RunningRecorder(tmp_path, RECORDER_WAL="false", **place.variables) as recorder:
        recorder.ready()
        server.arm(Fault("before", "status", table="orders", status=404, code=60, text="no such table"))
        with Publisher(recorder.bus_url) as publisher:
            for n in range(100):
                assert publisher.publish("orders", order(n, client_order_id=str(n)))
                assert publisher.publish("account_state", {"account_id": f"{n}"})
            wait_until(lambda: recorder.rows("account_state") == 100, "rows of the other table")
            wait_until(lambda: publisher.stats().acked == 100, "their acknowledgement")
            wait_until(lambda: any("orders is held" in reason for reason in recorder.reasons() or []), "held")
            assert recorder.rows("orders", "pending") == 100
            server.disarm()
            assert publisher.flush(60)
        assert_exact(recorder)
        assert recorder.stop() == 0
    assert numbers(tmp_path, place) == list(range(100))


def test_serve_answers_while_it_records_and_changes_nothing(tmp_path: pathlib.Path) -> None:
    """The embedded engine is asked over HTTP by another process meanwhile; an INSERT is refused."""
    with RunningRecorder(tmp_path, "--serve", "127.0.0.1:0") as recorder:
        url = recorder.ready().wait_event("serving the embedded engine, read-only")["url"]
        with Publisher(recorder.bus_url) as publisher:
            for n in range(20):
                assert publisher.publish("orders", order(n))
            assert publisher.flush(60)
        wait_until(lambda: recorder.rows("orders") == 20)  # they were acknowledged when they were on the log
        with urllib.request.urlopen(f"{url}?query=SELECT+count()+FROM+orders", timeout=30) as answer:
            assert answer.read() == b"20\n"
        wrong = urllib.request.Request(url, data=b"TRUNCATE TABLE orders", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(wrong, timeout=30)
        with urllib.request.urlopen(f"{url}?query=SELECT+count()+FROM+orders", timeout=30) as answer:
            assert answer.read() == b"20\n"
        assert recorder.stop() == 0


def test_a_health_port_in_use_is_one_line_and_exit_code_1(place: Place, tmp_path: pathlib.Path) -> None:
    """It does not start, and says which port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run_command(
            "--data-dir", tmp_path / "data", "run", "--bus", f"zmq://{tmp_path}/b.sock", "--health-addr", address,
            cwd=tmp_path, **place.variables,
        )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert [line for line in ended.stderr.splitlines() if not line.startswith("{")] == [
        f"error: health port {address}: already in use; stop what listens there, or set another health_addr"
    ]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("--bus", "carrier-pigeon://loft"), {}, ("carrier-pigeon", "no such bus")),
        (("--bus", "127.0.0.1:5570"), {}, ("bus", "no URL")),
        (("--bus", "zmq://127.0.0.1:1", "--bus", "zmq://127.0.0.1:1"), {}, ("bus", "twice")),
        (("--bus", "zmq://0.0.0.0:5570"), {}, ("zmq://0.0.0.0:5570", "other machines", "bus_allow_remote = true")),
        (("--serve", "nonsense"), {}, ("--serve", "no address")),
        (("--serve", ""), {}, ("--serve: '' is no address",)),
        (("--serve", "off"), {}, ("--serve", "no address; write host:port as in 127.0.0.1:9477\n")),
        (("--serve", "0.0.0.0:8123"), {}, ("--serve 0.0.0.0:8123", "other machines", "use 127.0.0.1:8123, and a")),
        ((), {"RECORDER_TOPICS": '{"a.*": "oders"}'}, ("topics", "'oders'", 'did you mean "orders"?')),
        ((), {"RECORDER_TOPICS": '{"a.*": "normaliser:x"}'}, ("topics", "normaliser 'x'", "installed are")),
        ((), {"RECORDER_SHUTDOWN_TIMEOUT_S": "soon"}, ("RECORDER_SHUTDOWN_TIMEOUT_S", "must be a number")),
        (("--health-addr", "nonsense"), {}, ("health_addr", "no address")),
        (("--serve", "127.0.0.1:0"), {"RECORDER_TARGET": "http://localhost:1"}, ("--serve", "ask that server")),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line_and_exit_code_2(
    tmp_path: pathlib.Path, arguments: tuple[str, ...], environment: dict[str, str], words: tuple[str, ...]
) -> None:
    """Nothing is started or made; the line names what is wrong and where it was said."""
    ended = run_command("--data-dir", tmp_path / "data", "run", *arguments, cwd=tmp_path, **environment)
    assert ended.returncode == 2, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines(keepends=True) if not line.startswith("{")]
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not (tmp_path / "data").exists()


def test_a_wrong_password_is_one_line_and_exit_code_1(tmp_path: pathlib.Path) -> None:
    """A server that answers, and refuses the login, is nothing to wait for."""
    with contextlib.closing(
        DevServerProcess(tmp_path / "server", options={"user": "writer", "password": "right"})
    ) as server:
        server.start()
        target = server.url.replace("http://", "http://writer:wrong-secret@")
        ended = run_command(
            "--target", f"{target}/trading", "--data-dir", tmp_path / "data", "run", "--health-addr", "127.0.0.1:0",
            cwd=tmp_path,
        )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert "wrong-secret" not in ended.stderr
    assert "password" in line or "login" in line or "uthentication" in line
