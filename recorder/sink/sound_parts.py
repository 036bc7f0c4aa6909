"""What the full disk broke is found and mended before anybody relies on it.

The embedded engine does not notice that a `write()` failed: on a full disk it confirms an insert, or ends a merge,
whose part lacks data. So the disk is looked at after each insert. While it has room, nothing that was written can have
failed for want of it, and nothing more is done. From the moment it was seen short until it has room again and all
parts written meanwhile were checked, the disk is *in doubt*: inserts and look-ups go through `settle` first, which
checks those parts and mends the broken ones:

- a part that an insert wrote is taken out of its table, and every insert into that table that is under way is told
  so by a `Retryable`: the caller's look-up finds its rows absent, and sends them again;
- a part that a merge wrote is replaced by the parts it was made of, which the engine keeps for a while.

Where that cannot be done yet, or a part cannot be checked, the table's calls raise `Retryable`, where it can never be
done `HoldError`; other tables go on. Only tables that sinks of this process have inserted into or looked up are mended:
broken parts of others are named in the log, and left alone until one does. Invariants: one thread mends at a time;
nothing is deleted; a look-up during which parts of its table were exchanged gives no answer; with room on the disk,
and no table held, no lock is taken and nothing asked.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shutil
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from clickhouse_connect.driver.client import Client

from recorder.sink import parts
from recorder.sink.disk_doubt import DiskDoubt
from recorder.sink.errors import HoldError, Retryable, SinkError
from recorder.sink.left_parts import LeftParts
from recorder.sink.parts import Key, Part, Table

log = logging.getLogger(__name__)

SLACK_S = 60.0
"""Parts written so long before the disk was last seen with room are checked too, because clocks are set."""
AFTER_READ_ERROR_S = 600.0
"""How far back parts are checked when a table cannot be read though the disk was never seen short."""
UNREADABLE = frozenset({33, 40, 49, 117, 226, 228, 246, 271})
"""Codes with which reading a broken part fails."""
NOT_ENOUGH_SPACE = 243
_ROUNDS = 5
_THEN = "written while the disk was full or nearly so"

_guards: weakref.WeakValueDictionary[str, SoundParts] = weakref.WeakValueDictionary()
_guards_lock = threading.Lock()


def guard_of(path: pathlib.Path, keep_free_bytes: int) -> SoundParts:
    """The one guard of an engine folder in this process, whoever has handles on it."""
    with _guards_lock:
        guard = _guards.get(str(path))
        if guard is None:
            guard = _guards[str(path)] = SoundParts(path)
        guard.disk.expect(keep_free_bytes)
        return guard


class SoundParts:
    """Watches over the parts of one engine folder. Its methods may be called from any thread."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.disk = DiskDoubt(path)
        self._lock = threading.RLock()  # whoever has it checks and mends
        self._sound: set[Key] = set()  # parts that were checked since
        # A table is noted as this process's before its call reads whether there is doubt; a part that is not mended
        # because its table was not noted yet is left here before the doubt ends. So whatever the order, the first
        # call for a table sees the doubt, or finds the part here and brings the doubt back (`settle`).
        self._ours: set[Table] = set()
        self._left = LeftParts()
        self._aside: defaultdict[Table, int] = defaultdict(int)  # parts taken out that inserts had written
        self._exchanges: defaultdict[Table, int] = defaultdict(int)  # odd while parts are exchanged
        self._barred: dict[Table, SinkError] = {}
        self._lost: dict[Table, dict[str, tuple[str, Callable[[Client], bool]]]] = {}
        self._staged: set[pathlib.Path] = set()  # folders of parts that wait until theirs can be taken out
        # Parts that were taken out, and the folders of those to put back for them.
        self._restoring: dict[Table, dict[Part, pathlib.Path]] = {}
        self._stopped: dict[Table, str] = {}  # tables whose merges are stopped

    def own(self, tables: Iterable[Table]) -> None:
        """Note tables as this process's before their first call, so that none of their parts is left alone."""
        self._ours.update(tables)

    # -- what calls go through ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def inserting(self, client: Client, table: Table) -> Iterator[None]:
        """Around an insert into the table.

        Raises:
            Retryable: the table has broken parts, or a part that may be the insert's was taken out of it.
            HoldError: the table has a broken part that cannot be replaced.
        """
        self._ours.add(table)
        if self.disk.since_s is not None or self._lost or table in self._left:
            self.settle(client, table)
        aside = self._aside.get(table, 0)
        try:
            yield
        except Exception as error:
            self.disk.look()
            if getattr(error, "code", None) == NOT_ENOUGH_SPACE:
                self.disk.begin(self.disk.last_room_s)
            raise
        if not self.disk.look():
            self.settle(client, table)
        if self._aside.get(table, 0) != aside:
            raise Retryable(
                f"{_name(table)}: a part {_THEN} was found broken and taken out of the table; its rows are looked up "
                "and sent again"
            )

    @contextlib.contextmanager
    def reading(self, client: Client, table: Table) -> Iterator[None]:
        """Around a look-up in the table.

        Raises:
            Retryable: parts of the table were exchanged meanwhile, or have to be.
            HoldError: the table has a broken part that cannot be replaced.
        """
        self._ours.add(table)
        if not self.disk.look() or self._lost or table in self._left:
            self.settle(client, table)
        exchanges = self._exchanges.get(table, 0)
        if exchanges % 2:
            with self._lock:
                exchanges = self._exchanges[table]
        try:
            yield
        except Exception as error:
            if getattr(error, "code", None) in UNREADABLE:
                self.disk.begin(time.time() - AFTER_READ_ERROR_S)
                self.settle(client, table)
            if self._exchanges.get(table, 0) == exchanges:
                raise
        if self._exchanges.get(table, 0) != exchanges:
            raise Retryable(
                f"{_name(table)}: broken parts of the table were replaced meanwhile; to be asked again"
            )

    def recall(self, client: Client) -> None:
        """Take up what a process that ended while it undid a merge has left. Called once the engine is open."""
        with self._lock:
            for part, folder in parts.staged_before(client, self._path):
                table = part.of
                if not parts.is_active(client, part):
                    log.warning("%s: the parts in %s are put back", _name(table), folder)
                    self._ours.add(table)
                    self._stop_merges(client, part)
                    self._restoring.setdefault(table, {})[part] = folder
                    self.disk.begin(time.time())
                elif folder not in self._staged:  # the engine found the part sound
                    shutil.rmtree(folder)

    # -- checking and mending -----------------------------------------------------------------------------------

    def settle(self, client: Client, table: Table) -> None:
        """Check what was written since the disk is in doubt, and mend what is broken.

        Raises:
            Retryable: this table's broken parts cannot be mended yet, or nothing could be checked.
            HoldError: it has a broken part that cannot be replaced.
        """
        with self._lock:
            if table in self._left and self.disk.since_s is None:
                self.disk.begin(time.time())
            if self.disk.since_s is not None:
                try:
                    self._settle(client)
                except SinkError:
                    raise
                except Exception as error:
                    raise Retryable(
                        f"{_name(table)}: the disk of {self._path} was full or nearly so, and what was written "
                        f"meanwhile could not be checked: {_short(error)}",
                        code=_code(error),
                    ) from error
            self._see_mended_by_hand(client, table)
            if why := self._lost.get(table):
                raise HoldError("; ".join(told for told, _ in why.values()))
            if barred := self._barred.get(table):
                raise barred

    def _settle(self, client: Client) -> None:
        for _ in range(_ROUNDS):
            self._barred.clear()
            began_s, began_at_s = time.monotonic(), time.time()
            self.disk.look()
            # Asked before the parts: what is not running any more has left its part.
            still_writing = parts.writing_for(client, max(0.0, began_s - self.disk.last_short_s - 1.0))
            broken = self._broken(client)
            if not broken and not self._restoring:
                self._start_merges(client)
                self.disk.look()
                # Barred are the tables with parts that could not be checked.
                if not still_writing and not self._barred and self.disk.end(began_s, began_at_s):
                    self._sound.clear()
                return
            if not self._mend(client, broken):
                return
        for table in {*broken, *self._restoring}:
            self._barred[table] = Retryable(f"{_name(table)}: parts are broken still after {_ROUNDS} rounds")

    def _broken(self, client: Client) -> dict[Table, list[Part]]:
        """This process's tables' broken parts among those written since the disk is in doubt, or left before, but
        those known to be beyond mending. Bars the tables with a part that cannot be checked."""
        assert self.disk.since_s is not None
        written = parts.written_since(client, self.disk.since_s - SLACK_S)
        broken: dict[Table, list[Part]] = {}
        for part in {part.key: part for part in (*self._left.of(self._ours), *written)}.values():
            ours = part.of in self._ours
            if part.key in self._sound or part.name in self._lost.get(part.of, {}):
                self._left.take(part)
                continue
            if not ours and self._left.has(part):
                continue
            try:
                # Asked twice: a part is not taken out of its table for a check that failed by accident.
                why = parts.fault_of(client, part) and parts.fault_of(client, part)
            except SinkError:  # of the handle
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the table waits and the others go on
                if ours:
                    self._bar_unchecked(client, part, error)
                else:
                    self._left.leave(part, f"({_THEN}) could not be checked: {_short(error)}")
                continue
            if not why:
                self._sound.add(part.key)
                self._left.take(part)
            elif ours:
                log.error("%s: %s is broken: %s", _name(part.of), part.told, why)
                broken.setdefault(part.of, []).append(part)
            else:
                self._left.leave(part, f"({_THEN}) is broken: {why}")
        return broken

    def _bar_unchecked(self, client: Client, part: Part, error: Exception) -> None:
        self._barred[part.of] = Retryable(
            f"{_name(part.of)}: {part.told}, {_THEN}, could not be checked: {_short(error)}",
            code=_code(error),
        )
        if part.of not in self._stopped:  # merged with others it could pass for sound
            with contextlib.suppress(Exception):
                self._stop_merges(client, part)

    def _mend(self, client: Client, broken: dict[Table, list[Part]]) -> bool:
        """Mend what can be; whether it is worth looking again."""
        again = False
        for table in {*broken, *self._restoring}:
            self._exchanges[table] += 1
            try:
                self._mend_table(client, table, broken.get(table, []))
                again = True
            except Exception as error:  # noqa: BLE001 - whatever it is, the table waits and the others go on
                self._barred[table] = Retryable(
                    f"{_name(table)}: parts {_THEN} are broken and are replaced once there is room: free space on "
                    f"the disk of {self._path} ({_mib(self.disk.free_bytes())} are free; {_short(error)})",
                    code=_code(error),
                )
            finally:
                self._exchanges[table] += 1
        return again

    def _mend_table(self, client: Client, table: Table, broken: list[Part]) -> None:
        """Take the broken parts out, and put back what merged ones were made of."""
        if broken:
            # A merge of a broken part could pass for sound, and one that began later would hide this one's sources.
            self._stop_merges(client, broken[0])
        # Before any part is taken out: the engine may delete the inactive ones then.
        staged = {part: parts.stage(client, part) for part in broken if part.made_of_parts}
        self._staged.update(folder for folder in staged.values() if folder is not None)
        for part in broken:
            if part.made_of_parts:
                folder = staged[part]
                if folder is None:
                    self._give_up(table, part)
                else:
                    parts.set_aside(client, part)
                    self._restoring.setdefault(table, {})[part] = folder
            else:
                parts.set_aside(client, part)
                self._aside[table] += 1
                log.error(
                    "%s: %s, %s and broken, was moved to %s; an insert under way sends its rows again, and rows "
                    "confirmed before are in that folder alone",
                    _name(table), part.told, _THEN, part.folder / "detached" / part.name,
                )  # fmt: skip
        self._put_back(client, table)

    def _put_back(self, client: Client, table: Table) -> None:
        """In the place of merged parts that were taken out put those they were made of."""
        for part, folder in list(self._restoring.get(table, {}).items()):
            if not folder.exists():  # the table was dropped
                del self._restoring[table][part]
                continue
            for source in parts.put_back(client, part, folder):
                if why := parts.fault_of(client, source):
                    self._give_up(table, source, why)
            del self._restoring[table][part]
            self._staged.discard(folder)
            log.error(
                "%s: %s, %s by a merge, was broken; the parts it was made of are in its place, and it lies in %s",
                _name(table), part.told, _THEN, part.folder / "detached" / part.name,
            )  # fmt: skip
        if not self._restoring.get(table):
            self._restoring.pop(table, None)

    def _give_up(self, table: Table, part: Part, why: str = "the parts it was made of are gone") -> None:
        told = (
            f"{_name(table)}: {part.told}, {_THEN}, is broken, and {why}. Restore {part.folder / part.name} from a "
            f"backup, or give its rows up: ALTER TABLE {part.table_name} DETACH PART '{part.name}'"
        )
        log.critical(told)
        self._lost.setdefault(table, {})[part.name] = told, lambda client: not parts.is_active(client, part)

    def _stop_merges(self, client: Client, part: Part) -> None:
        parts.stop_merges(client, part)
        self._stopped[part.of] = part.table_name

    def _start_merges(self, client: Client) -> None:
        for table, quoted in list(self._stopped.items()):
            if table not in self._lost and table not in self._barred:
                with contextlib.suppress(Exception):  # the table may be gone
                    parts.start_merges(client, quoted)
                del self._stopped[table]

    def _see_mended_by_hand(self, client: Client, table: Table) -> None:
        lost = self._lost.get(table, {})
        for name in [name for name, (_, mended) in lost.items() if mended(client)]:
            del lost[name]
        if not lost and self._lost.pop(table, None) is not None:
            self._start_merges(client)


def _name(table: Table) -> str:
    return ".".join(table)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _code(error: Exception) -> int:
    return getattr(error, "code", None) or 0


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
