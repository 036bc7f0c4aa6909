"""`recorder run`."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from recorder.cli.options import Invocation, pass_invocation

if TYPE_CHECKING:
    from recorder.settings import Settings

HEALTH_ADDR = "127.0.0.1:9477"
SWITCH_INTERVAL_S = 1e-3


@click.command()
@click.option("--bus", multiple=True, metavar="URL", help="Bus to subscribe to; may be given several times.")
@click.option(
    "--serve", metavar="ADDR", help="Answer ClickHouse's HTTP queries on the embedded engine, read-only."
)
@click.option(
    "--health-addr",
    metavar="ADDR",
    help=f'Address of health and metrics, or "off".  [default: {HEALTH_ADDR}]',
)
@pass_invocation
def run(invocation: Invocation, bus: tuple[str, ...], serve: str | None, health_addr: str | None) -> None:
    """Record what buses deliver, until stopped.

    A message is acknowledged when its rows are durable. With the database down it starts all the same, takes what it
    can hold, and goes on when the database comes. SIGTERM or Ctrl-C stops it: it reads no more, flushes within
    shutdown_timeout_s, and acknowledges. A second one ends that at once. SIGHUP reads the settings again. What
    retention has due is carried out at the times of retention_schedule, and when SIGUSR1 comes.

    \b
    Exit codes:
        0    stopped: what was taken is durable, or will be delivered again
        1    could not start (port in use, login refused, folder in use), or failed later, or lost rows of a bus that
             promises at-most-once; one line says why
        2    wrong use, or settings that cannot be
        130  a second SIGINT ended the flush, or the first one a start; 143 SIGTERM

    \b
    Example:
        recorder run --bus zmq://127.0.0.1:5570
        recorder --target http://localhost:8123/trading run --bus zmq://127.0.0.1:5570 --bus zmq:///run/md.sock
    """
    import asyncio

    from recorder.collector import rare_collection
    from recorder.loop import new_loop
    from recorder.service.service import Service

    base: dict[str, Any] = {"health_addr": HEALTH_ADDR, "switch_interval_s": SWITCH_INTERVAL_S}
    if invocation.json or not sys.stderr.isatty():
        base["log_format"] = "json"

    def read(*, set_up_log: bool = False) -> Settings:
        return invocation.settings(base=base, set_up_log=set_up_log, bus=bus or None, health_addr=health_addr)

    settings = read(set_up_log=True)
    if serve is not None:
        _check_serve(serve, settings)

    async def main() -> int:
        service = Service(settings, reread=read, set_up_log=invocation.set_up_log, serve=serve)
        code = await service.run()
        if service.stuck:
            logging.shutdown()
            os._exit(code)
        return code

    with rare_collection(), asyncio.Runner(loop_factory=new_loop) as runner:
        code = runner.run(main())
    click.get_current_context().exit(code)


def _check_serve(addr: str, settings: Settings) -> None:
    """Refuse an address that is none, or a target that answers for itself.

    Raises:
        UsageError: it is so.
    """
    from recorder.settings import parse_address

    if not settings.target.embedded:
        raise click.UsageError(
            f"--serve answers for the embedded engine, and target is {settings.target}; ask that server"
        )
    try:
        address = parse_address(addr)
    except ValueError as error:
        raise click.UsageError(f"--serve: {error}") from error
    if not address.loopback:
        raise click.UsageError(
            f"--serve {address}: other machines would reach it, and it asks for no password; use "
            f"127.0.0.1:{address.port}, and a tunnel or a proxy with a login for who is elsewhere"
        )
