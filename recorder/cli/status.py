"""`recorder status`."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import click

from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import emit_json, emit_table, print_error, shown
from recorder.redact import redacted

EXIT_NOT_READY = 3
ASK_S = 5.0
WATCH_S = 1.0
DEFAULT_ADDR = "127.0.0.1:9477"
NUMBERS = ["received", "inserted", "pending", "shed", "dead", "dupl.", "lag p99 s"]


@click.command()
@click.option(
    "--url",
    metavar="URL",
    help=f"Health port of the recorder.  [default: health_addr, else http://{DEFAULT_ADDR}]",
)
@click.option("--watch", is_flag=True, help="Show it again every second, until interrupted.")
@click.option("--all", "all_tables", is_flag=True, help="Show tables without rows too.")
@pass_invocation
def status(invocation: Invocation, url: str | None, watch: bool, all_tables: bool) -> None:
    """Ask a running recorder how it is: state, alarms, rows of each table, buses, held tables and why.

    \b
    Exit codes: 0 ready, 3 not ready (the reasons are shown), 1 not reachable, 2 wrong use.

    \b
    Example:
        recorder status
        recorder status --url http://127.0.0.1:9477 --watch
        recorder status --json | jq .balance.orders
    """
    address = invocation.settings().health_addr or DEFAULT_ADDR
    place = _place(address, "health_addr") if url is None else _place(url, "--url")
    if not watch:
        click.get_current_context().exit(_show(invocation, place, all_tables=all_tables))
    code = 1
    try:
        while True:
            try:
                found = _asked(place)
            except Failure as error:
                code = 1
                click.clear()
                print_error([str(error)], as_json=invocation.json)
            else:
                if not invocation.json:
                    click.clear()
                code = _print(invocation, *found, all_tables=all_tables)
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        click.get_current_context().exit(code)


def _place(url: str, said_by: str) -> str:
    """The health port's address, from whatever of it was given.

    Raises:
        UsageError: it is none.
    """
    wrong = f"{said_by} {redacted(url)!r} is no address; write http://{DEFAULT_ADDR}"
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError as error:  # a port that is no number, half a bracket, a name that is too long
        raise click.UsageError(wrong) from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\x00-\x20\x7f@]", parts.netloc):
        raise click.UsageError(wrong)
    if port == 0 or (port is None and "://" not in url):
        raise click.UsageError(
            f"{said_by} {redacted(url)!r} names no port to ask at; give the recorder's, as in --url {DEFAULT_ADDR}"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise click.UsageError(f"{wrong}, and nothing behind the port")
    return f"{parts.scheme}://{parts.netloc}"


def _show(invocation: Invocation, place: str, *, all_tables: bool) -> int:
    return _print(invocation, *_asked(place), all_tables=all_tables)


def _asked(place: str) -> tuple[Mapping[str, Any], list[str]]:
    """The recorder's status, and why it is not ready.

    Raises:
        Failure: nobody answers, or somebody else does.
    """
    ready = _get(f"{place}/readyz")
    return _get(f"{place}/status"), [str(reason) for reason in ready.get("reasons", [])]


def _get(url: str) -> Mapping[str, Any]:
    try:
        text = _read(url)
    except http.client.HTTPException as error:
        raise Failure(
            f"{url}: what answers does not speak HTTP as it should ({type(error).__name__}); is this the health "
            "port of a recorder?"
        ) from error
    except OSError as error:
        raise Failure(
            f"{url}: no answer ({_reason(error)}); is the recorder running, and is this its health_addr "
            '(--health-addr of "recorder run", RECORDER_HEALTH_ADDR)?'
        ) from error
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure(f"{url}: the answer is not a recorder's; is this its health port?")
    return value


def _reason(error: OSError) -> str:
    """Why nobody answered, without numbers of the system."""
    why = getattr(error, "reason", None) or error
    if isinstance(why, TimeoutError):
        return f"within {ASK_S:g} s"
    if isinstance(why, socket.gaierror):
        return "the name is not known"
    text = str((isinstance(why, OSError) and why.strerror) or why)
    return text[:1].lower() + text[1:]


def _read(url: str) -> bytes:
    # Without proxies: a recorder is asked where it is, whatever the environment says of the way to the web.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ASK_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise Failure(f"{url}: answers {error.code}; is this the health port of a recorder?") from error
        return error.read()  # with the reasons


def _print(invocation: Invocation, found: Mapping[str, Any], reasons: list[str], *, all_tables: bool) -> int:
    """Show it; the exit code."""
    code = EXIT_NOT_READY if reasons else 0
    if invocation.json:
        emit_json({"ready": not reasons, "reasons": reasons, **found})
        return code
    seconds = max(0.0, time.time() - found.get("started_ns", 0) / 1e9)
    click.echo(f"{'NOT READY' if reasons else 'ready'}: recorder {found.get('version')}, up {_span(seconds)}")
    click.echo(
        f"target {found.get('target')}, database {found.get('database')}, "
        f"server {found.get('server') or 'not reached yet'}"
    )
    for reason in reasons:
        click.echo(f"  {shown(reason)}")
    for alarm in found.get("alarms", []):
        click.echo(shown(_alarm(alarm)))
    if disk := found.get("log_disk"):
        click.echo(shown(_log_disk(disk)))
    if retention := found.get("retention"):
        click.echo(shown(_retention(retention)))
    for name, log in found.get("unread_logs", {}).items():
        click.echo(
            shown(
                f"  {name} has {log.get('rows'):,} rows on its log that this run does not read: {log.get('remedy')}"
            )
        )
    tables, balance = found.get("tables", {}), found.get("balance", {})
    rows = [
        _row(name, tables.get(name, {}), counts)
        for name, counts in balance.items()
        if all_tables or counts.get("received") or tables.get(name, {}).get("held_because")
    ]
    if rows:
        emit_table(["table", "state", *NUMBERS, "queue"], rows, right=[*NUMBERS, "queue"])
    else:
        click.echo("no rows yet")
    if buses := found.get("buses", {}):
        numbers = ["messages", "again", "rows", "bad", "ignored", "unacked", "oldest s"]
        emit_table(
            ["bus", "state", "guarantee", *numbers], [_bus(*item) for item in buses.items()], right=numbers
        )
    return code


def _alarm(alarm: Mapping[str, Any]) -> str:
    since_s = max(0.0, time.time() - alarm.get("since_ns", 0) / 1e9)
    of = alarm.get("table") or "recorder"
    return (
        f"ALARM {alarm.get('alarm')} ({alarm.get('severity')}) for {_span(since_s)}: {of} {alarm.get('why')}"
    )


def _log_disk(disk: Mapping[str, Any]) -> str:
    """How full the disk of the logs is, in a line."""
    minutes = disk.get("minutes")
    if disk.get("bytes_per_s") is None:
        lasts = "no rate is known yet"
    elif minutes is None:
        lasts = "nothing is logged"
    else:
        lasts = f"lasts for {_span(60 * minutes)} at {disk['bytes_per_s'] / 1e6:.2f} MB/s"
    why = f"; {disk['why']}" if disk.get("why") else ""
    return (
        f"log disk {disk.get('level')}: room for {disk.get('room_bytes', 0) / 2**30:,.1f} GiB, {lasts}{why}"
    )


def _retention(retention: Mapping[str, Any]) -> str:
    """When retention ran and runs next, in a line."""
    last = "has not run yet"
    if outcome := retention.get("last_outcome"):
        last = f"last run {_moment(retention['last_run_s'])}, {outcome}"
        last += f" ({retention['last_why']})" if retention.get("last_why") else ""
    if since_s := retention.get("running_since_s"):
        last = f"runs since {_moment(since_s)}; {last}"
    success_s = retention.get("last_success_s")
    success = f"last success {_moment(success_s)}" if success_s else "no success yet"
    next_s = retention.get("next_run_s")
    return f"retention {last}; {success}; next {_moment(next_s) if next_s else 'is off'}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def _row(name: str, table: Mapping[str, Any], counts: Mapping[str, int]) -> tuple[str, ...]:
    lag = table.get("lag", {})
    state = str(table.get("state", "")) if table.get("enabled", True) else "off"
    return (
        name,
        state,
        *(
            f"{counts.get(key, 0):,}"
            for key in ("received", "inserted", "pending", "shed", "dead_lettered", "duplicates_skipped")
        ),
        f"{lag['p99_s']:.3f}" if lag.get("p99_s") is not None and lag.get("count") else "-",
        f"{100 * table.get('queue_usage', 0.0):.0f} %",
    )


def _bus(name: str, bus: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"down: {bus['down']}" if bus.get("down") else "up",
        str(bus.get("guarantee", "")),
        *(
            f"{bus.get(key, 0):,}"
            for key in ("messages", "redelivered", "rows", "undecodable", "ignored", "unacknowledged")
        ),
        f"{bus.get('oldest_unacknowledged_s', 0.0):.1f}",
    )


def _span(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3_600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
