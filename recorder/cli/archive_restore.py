"""`recorder archive restore`: archived rows back into their table, or another one, each once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from recorder.archive_root import archive_store
from recorder.cli.archive import told
from recorder.cli.errors import Failure
from recorder.cli.options import Invocation, pass_invocation
from recorder.cli.output import counted, emit_json, note

if TYPE_CHECKING:
    from recorder.cli.archive_target import Client
    from recorder.settings import Settings
    from recorder.sink.base import Sink
    from retention.archive import Partition, Restored
    from schemas.executor import SqlExecutor
    from schemas.pack import Pack
    from schemas.renames import Renames

LOCK_TABLE = "recorder_restore_lock"
LOCK_WAIT_S = 10.0
DAY_NS = 86_400 * 10**9


class _Open(NamedTuple):
    """A database that rows may go into. `say` tells other restores that this one goes on."""

    client: Client
    executor: SqlExecutor
    sink: Sink
    runner: asyncio.Runner
    say: Callable[[], None]


@click.command()
@click.argument("table")
@click.argument("partition")
@click.option(
    "--at",
    "root",
    metavar="ROOT",
    help="A folder, or s3://bucket/prefix.  [default: the setting archive]",
)
@click.option(
    "--into",
    metavar="TABLE",
    help="Another table, made as the archive has the columns if it is not there; it has no TTL then.",
)
@click.option(
    "--despite-ttl", is_flag=True, help="Also where the table's TTL may delete the rows again at once."
)
@pass_invocation
def restore(
    invocation: Invocation, table: str, partition: str, root: str | None, into: str | None, despite_ttl: bool
) -> None:
    """Put an archived partition's rows back into their table, or into another one, each once.

    All files are read back first: nothing is sent before they were found true. Rows that the table has are not sent
    again. Afterwards the table is compared with the receipts. What was interrupted, or killed, is completed by running
    it again. The archive stays as it is.

    An embedded database is restored into while no recorder has it open; a server, beside a running one.

    \b
    Exit codes: 0 the table has every row of the receipts once, 1 it has not, and why.

    \b
    Example:
        recorder archive restore fills 2024-08
        recorder archive restore market_data 2024-08-08 --into august --at s3://my-bucket/trading
    """
    from recorder.packs import packs_of
    from retention.archive import partition_of, place_of

    if into == "":
        raise click.UsageError("--into is empty; name a table, or leave it out")
    settings = invocation.settings()
    packs = packs_of(settings)
    place = place_of(table, partition)
    store = archive_store(settings, root)
    known = partition_of(store, place)
    if not known.pieces:
        raise Failure(f'{place}: nothing of it is archived at {store}; see "recorder archive ls"')
    renames = next((pack.renames[table] for pack in packs if table in pack.renames), ())
    name = into or table
    with _opened(settings, name) as opened:
        from recorder.backoff import Backoff
        from recorder.cli.archive_target import TableTarget
        from retention.archive import restore_partition

        if into is not None:
            make_table(opened.executor, settings.database, into, known, renames)
        see_ttl(opened.executor, settings.database, name, known, despite_ttl=despite_ttl)
        target = TableTarget(
            opened.client,
            opened.sink,
            opened.runner,
            settings.database,
            name,
            insert_timeout_s=settings.insert_timeout_s,
            backoff=Backoff(settings.retry_initial_s, settings.retry_max_s),
            before=opened.say,
        )
        with told(invocation, str(place), known.sums.rows) as progress:
            done = restore_partition(target, store, place, renames=renames, progress=progress)
    if invocation.json:
        emit_json(
            {
                "table": place.table,
                "partition": place.partition,
                "root": str(store),
                "into": name,
                "rows": done.rows,
                "inserted": done.inserted,
                "there": done.there,
                "others": done.others,
                "pieces": done.pieces,
            }
        )
    else:
        _show(done, name)
    _see_retention(settings, packs, name, known)


def _show(done: Restored, name: str) -> None:
    what = f"{counted(done.inserted, 'row')} restored into {name}" if done.inserted else "nothing to restore"
    if done.there:
        what += f", {counted(done.there, 'row')} there already"
    click.echo(f"{done.place}: {what}; {counted(done.rows, 'row')} compared with the receipts")
    if done.others:
        note(f"{name} has {counted(done.others, 'row')} of that time that the archive has not")


@contextlib.contextmanager
def _opened(settings: Settings, table: str) -> Iterator[_Open]:
    """The database, for one restore at a time."""
    from recorder.reading.database import client_of, folder_of, must_exist
    from recorder.sink.open import open_sink
    from schemas.executor import ClientExecutor

    if settings.target.embedded:
        must_exist(folder_of(settings))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(client_of(settings, create=False))
        executor = ClientExecutor(client)
        runner = stack.enter_context(asyncio.Runner())
        sink = open_sink(settings, [table])
        stack.callback(lambda: runner.run(sink.close()))
        runner.run(sink.start())
        say = stack.enter_context(alone(settings, executor))
        yield _Open(client, executor, sink, runner, say)


@contextlib.contextmanager
def alone(settings: Settings, executor: SqlExecutor) -> Iterator[Callable[[], None]]:
    """No other restore works on a server meanwhile; an embedded database has one process."""
    from schemas.errors import LockLost, LockTimeout
    from schemas.lock import MigrationLock

    if settings.target.embedded:
        yield lambda: None
        return
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    lock = MigrationLock(executor, settings.database, owner=owner, table=LOCK_TABLE)
    with contextlib.ExitStack() as stack:
        try:
            lease = stack.enter_context(lock.held(timeout_s=LOCK_WAIT_S))
        except LockTimeout as error:
            raise Failure(
                f"database {settings.database}: another restore is at work ({lock.states()[-1].owner}); "
                "run again when it has ended"
            ) from error

        def say() -> None:
            try:
                lease.renew()
            except LockLost as error:
                raise Failure(
                    f"database {settings.database}: another restore took over, as this one was silent for long; "
                    "what is in is in once: run again when it has ended"
                ) from error

        yield say


def make_table(executor: SqlExecutor, database: str, into: str, known: Partition, renames: Renames) -> None:
    """Make the table that is to have the rows, if it is not there: as archived, and without a TTL."""
    from retention.archive.adapt import columns_of
    from schemas.quote import quote_name
    from schemas.render import DEDUP_WINDOW, FSYNC_SETTINGS

    columns = columns_of(known, renames)
    if unknown := [name for name, kind in columns.items() if not kind]:
        raise Failure(
            f"{known.place}: its manifest has no type of column {unknown[0]}; make the table {into} first"
        )
    by = "toYYYYMMDD" if len(known.place.id) == 8 else "toYYYYMM"
    settings = {"non_replicated_deduplication_window": DEDUP_WINDOW, "allow_nullable_key": 1}
    settings |= dict.fromkeys(FSYNC_SETTINGS, 1)
    executor.command(
        f"CREATE TABLE IF NOT EXISTS {quote_name(database)}.{quote_name(into)} "
        f"({', '.join(f'{quote_name(name)} {kind}' for name, kind in columns.items())}) "
        f"ENGINE = MergeTree PARTITION BY {by}(ts_local) ORDER BY ({known.pieces[-1].manifest.order_by}) "
        f"SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
    )


def see_ttl(executor: SqlExecutor, database: str, table: str, known: Partition, *, despite_ttl: bool) -> None:
    """Refuse rows that the table would delete again.

    Raises:
        Failure: its TTL is over for the oldest of them, or cannot be judged.
    """
    from schemas.live import ttl_of
    from schemas.quote import quote_moment

    found = executor.query(
        "SELECT engine_full FROM system.tables WHERE database = {db:String} AND name = {table:String}",
        {"db": database, "table": table},
    )
    ttl = ttl_of(str(found[0][0])) if found else ""
    oldest_ns = known.sums.min_ts_local_ns
    if not ttl or despite_ttl or oldest_ns is None:
        return
    remedy = (
        "put a hold on it first (recorder retention hold), which takes the TTL away; or restore into another table "
        "with --into; or, where the TTL was stopped, with --despite-ttl"
    )
    try:
        ((over,),) = executor.query(
            f"SELECT toUInt8(({ttl}) <= now()) FROM (SELECT {quote_moment(oldest_ns)} AS ts_local)"
        )
    except Exception as error:
        raise Failure(
            f"{table}: has a TTL that cannot be judged here ({ttl}), and might delete the rows of {known.place} "
            f"again; {remedy}"
        ) from error
    if int(over):
        raise Failure(
            f"{table}: its TTL ({ttl}) is over for rows of {known.place}, so it would delete them again at once; "
            f"{remedy}"
        )


def _see_retention(settings: Settings, packs: tuple[Pack, ...], table: str, known: Partition) -> None:
    """Tell where the recorder's own retention would drop the rows again."""
    policy_of = next((each for pack in packs for each in pack.tables if each.name == table), None)
    newest_ns = known.sums.max_ts_local_ns
    if policy_of is None or newest_ns is None:
        return
    days = settings.for_table(policy_of).keep_days
    if days is not None and newest_ns + days * DAY_NS < time.time_ns():
        note(
            f"{table} keeps rows for {days} days, and these are older: retention drops them again, "
            'unless "recorder retention hold" keeps them or the database has its TTL switched off'
        )
