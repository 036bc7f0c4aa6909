"""The service: buses, one recorder, a health port, and signals, as one process.

    start: settings ─► recorder (or a database it waits for) ─► subscriptions ─► READY
    stop:  read no more ─► flush within `shutdown_timeout_s`, acknowledging what becomes durable ─► leave the buses

SIGTERM and SIGINT stop it; a second one ends the flush at once. SIGHUP reads the settings again, SIGUSR1 runs retention
now. Subscriptions, signals and the schedule of retention are on the loop of the main thread, the recorder has a thread
of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from recorder.bus.base import Guarantee
from recorder.errors import RecorderError, SettingsError
from recorder.log import get_logger
from recorder.loop_watch import LoopWatch
from recorder.own_rows import OWN_TABLES
from recorder.recorder import Recorder
from recorder.service import checks
from recorder.service.assembly import Assembly
from recorder.service.consumer import Consumer
from recorder.service.notify import notify, reloading, watchdog_s
from recorder.service.orders_before import OrdersBefore
from recorder.service.readiness import Readiness
from recorder.service.reload import changes
from recorder.service.retention import Retention
from recorder.service.retention_ways import way_for
from recorder.service.topics import TopicMap
from recorder.settings import Settings
from recorder.stats import SourceCounts

if TYPE_CHECKING:
    from recorder.devserver.server import DevServer

log = get_logger("recorder.service")

EXIT_STOPPED = 0
EXIT_FAILED = 1
LOOK_S = 1.0
"""How often the service sees whether its recorder still lives."""
READY_LOOK_S = 0.1
"""How often it sees whether it is ready, until it is."""
STOP_S = 3.0
"""How long a run of retention may take to stop, at most a tenth of `shutdown_timeout_s`."""
RELOAD_S = 0.2
"""Signals to reload within this time are one."""


class Service:
    """See the module: `run` does everything, and returns the exit code.

    `reread` gives the settings anew for SIGHUP, `set_up_log` sets the log up by them; `serve` is the address of the
    read-only endpoint, if any.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reread: Callable[[], Settings],
        set_up_log: Callable[[Settings], None],
        serve: str | None = None,
    ):
        self._settings = self._started = settings
        self._reread = reread
        self._set_up_log = set_up_log
        self._serve = serve
        self._assembly = Assembly(settings)
        self._consumers: list[Consumer] = []
        self._stopped_by: list[signal.Signals] = []
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_soon: asyncio.TimerHandle | None = None
        self._failed = ""
        self._readiness = Readiness()
        self._recorder: Recorder | None = None
        self._retention: Retention | None = None
        self._retain_soon = False
        self._loop_watch = LoopWatch(stall_s=settings.loop_stall_s, name="service")
        self._endpoint: DevServer | None = None
        self.stuck = False
        """After `run`: calls of the database would not end, and the process is to end by `os._exit`. The interpreter's
        own exit would wait for them, or crash in an engine that is open."""

    async def run(self) -> int:
        """Run until a signal stops it; the exit code.

        Raises:
            SettingsError: settings cannot be used; before anything was started.
            RecorderError, SinkError, SchemaError: it cannot start.
        """
        with self._signals():
            self._topics = self._assembly.topics(self._settings)
            self._recorder = recorder = self._assembly.recorder()
            makers = self._assembly.consumers()
            checks.tell_settings(self._settings)
            checks.tell_disk(self._settings)
            if self._assembly.archives:
                checks.see_archive(self._settings)
            try:
                if await self._start(recorder):
                    await self._run_with(recorder, makers)
            finally:
                self._loop_watch.close()
                lost = await self._shut(recorder)
        return self._exit_code(lost)

    # -- running ------------------------------------------------------------------------------------------------

    async def _start(self, recorder: Recorder) -> bool:
        """Start the recorder; False where the service was told to stop meanwhile.

        A start that will not end then is given up after `shutdown_timeout_s`, or by a second signal: nothing was taken.
        """
        starting = asyncio.create_task(asyncio.to_thread(recorder.start))
        in_time = await self._unless(self._stop, starting) or await self._unless(
            self._hurry, starting, timeout_s=self._settings.shutdown_timeout_s
        )
        if not in_time:
            log.warning("the start did not end when it was told to; the process ends without waiting for it")
            self.stuck = True
            return False
        await starting
        return not self._stop.is_set()

    @staticmethod
    async def _unless(
        event: asyncio.Event, work: asyncio.Task[Any], *, timeout_s: float | None = None
    ) -> bool:
        """Wait for work, an event or the end of a time; whether the work is done."""
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({work, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return work.done()

    async def _run_with(
        self, recorder: Recorder, makers: list[Callable[[Recorder, TopicMap], Consumer]]
    ) -> None:
        checks.tell_database(self._settings, recorder.status())
        checks.tell_health(recorder)
        self._loop_watch.start()
        recorder.watch_loop(self._loop_watch)
        if self._serve:
            await self._open_endpoint(self._serve)
        for make in makers:
            consumer = make(recorder, self._topics)
            self._consumers.append(consumer)
            recorder.watch(consumer.name, consumer.counts)
        order_ids = self._assembly.order_ids
        recorder.watch("order_ids", lambda: SourceCounts(unresolved=order_ids.unresolved.copy()))
        before = OrdersBefore(recorder, order_ids, self._settings.database)
        learning = asyncio.create_task(before.learn())
        if not await self._unless(self._stop, learning):
            learning.cancel()
            return
        await learning
        await asyncio.gather(*(consumer.start() for consumer in self._consumers))
        if not self._consumers:
            log.warning("no bus is subscribed to: nothing will come; give --bus")
        self._readiness.saw(await asyncio.to_thread(recorder.unready))
        notify(READY="1")
        settings = self._started
        self._retention = Retention(
            recorder,
            way_for(settings, recorder.packs),
            self._settings.retention_schedule,  # which may have been read again by now
            stop_s=min(STOP_S, 0.1 * settings.shutdown_timeout_s),
        )
        self._retention.start()
        if self._retain_soon:
            self._retention.run_now()
        looking = asyncio.create_task(self._look_after(recorder, before), name="look after")
        looking.add_done_callback(self._looked)
        await self._stop.wait()
        looking.cancel()

    async def _open_endpoint(self, addr: str) -> None:
        """Answer questions on the embedded engine."""
        from recorder.devserver.server import DevServer

        settings = self._settings
        server = DevServer(
            settings.target.path,
            addr=addr,
            option="--serve",
            database=settings.database,
            read_only=True,
            keep_free_bytes=settings.engine_keep_free_bytes,
            tmp_dir=settings.data_dir / "tmp",
        )
        await server.start()
        self._endpoint = server
        log.info("serving the embedded engine, read-only", url=server.url)

    async def _look_after(self, recorder: Recorder, before: OrdersBefore) -> None:
        """See that the recorder lives, and whether it is ready, and tell the supervisor so."""
        every_s = min(LOOK_S, watchdog_s() or LOOK_S)
        while True:
            await asyncio.sleep(every_s if self._readiness.ever else min(READY_LOOK_S, every_s))
            if not recorder.running:
                self._fail("the recorder ended unexpectedly")
                return
            if why := next((why for consumer in self._consumers if (why := consumer.failed)), ""):
                self._fail(why)
                return
            await before.learn()
            with contextlib.suppress(RecorderError):
                reasons = await asyncio.to_thread(recorder.unready)  # a loop that is stuck does not answer
                self._readiness.saw(reasons)
                if watchdog_s() is not None:
                    notify(WATCHDOG="1")

    def _looked(self, task: asyncio.Task[None]) -> None:
        """Without its look-out the service would go on blindly."""
        if not self._stop.is_set():
            why = "cancelled" if task.cancelled() else repr(task.exception())
            self._fail(f"the look-out ended unexpectedly: {why}")

    def _fail(self, why: str) -> None:
        self._failed = why
        log.critical(why)
        self._stop.set()

    # -- stopping -----------------------------------------------------------------------------------------------

    async def _shut(self, recorder: Recorder) -> int:
        """Stop everything in order; rows that were lost."""
        if not recorder.started:
            return 0
        notify(STOPPING="1", STATUS="flushing")
        await asyncio.gather(
            *(consumer.stop_reading() for consumer in self._consumers), self._stop_retention()
        )
        log.info("flushing", unacknowledged=self._unacknowledged())
        try:
            await asyncio.gather(asyncio.to_thread(recorder.close), self._close_endpoint())
        finally:
            await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        self.stuck |= recorder.stuck
        if self._retention is not None and self._retention.stuck:
            self.stuck = True
            log.warning(
                "a run of retention would not end when it was told to; the process ends without waiting for it, "
                "and the next run goes on"
            )
        given_up = [found for name, found in recorder.given_up().items() if name not in OWN_TABLES]
        lost = sum(found.lost for found in given_up)
        if unacknowledged := self._unacknowledged():
            log.warning(
                "messages were not acknowledged: none is lost, their bus delivers them again",
                messages=unacknowledged,
                rows=sum(found.again for found in given_up),
            )
        log.info("stopped", rows_lost=lost, unacknowledged=unacknowledged)
        return lost

    async def _stop_retention(self) -> None:
        if self._retention is not None:
            await self._unless(self._hurry, asyncio.create_task(self._retention.close()))

    def _unacknowledged(self) -> int:
        return sum(consumer.pending for consumer in self._consumers)

    async def _close_endpoint(self) -> None:
        if self._endpoint is not None and not await self._endpoint.close():
            self.stuck = True
            log.warning(
                "a query over --serve would not end when it was told to; the process ends without waiting for it"
            )

    def _exit_code(self, lost: int) -> int:
        if self._failed:
            return EXIT_FAILED
        if len(self._stopped_by) > 1:
            return 128 + self._stopped_by[-1]
        if lost and any(consumer.guarantee is Guarantee.AT_MOST_ONCE for consumer in self._consumers):
            return EXIT_FAILED  # nobody delivers them again
        return EXIT_STOPPED

    # -- signals ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        loop.add_signal_handler(signal.SIGUSR1, self._told_to_retain)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                loop.remove_signal_handler(number)

    def _told_to_stop(self, number: signal.Signals) -> None:
        self._stopped_by.append(number)
        if len(self._stopped_by) == 1:
            log.info("told to stop", signal=number.name)
            self._stop.set()
        else:
            log.warning("told to stop at once: what memory holds is given up", signal=number.name)
            self._hurry.set()
            if self._recorder is not None:
                self._recorder.abort()

    def _told_to_retain(self) -> None:
        self._retain_soon = True  # also before there is somebody to run it
        if self._retention is not None:
            self._retention.run_now()

    def _told_to_reload(self) -> None:
        """Soon, so that many signals are one reading."""
        if self._reload_soon is None:
            self._reload_soon = asyncio.get_running_loop().call_later(RELOAD_S, self._reload_now)

    def _reload_now(self) -> None:
        self._reload_soon = None
        if self._stop.is_set():
            return
        reloading()
        try:
            self._reload()
        except (SettingsError, RecorderError) as error:
            log.error("settings were read again and are wrong; the old ones stay", why=str(error))
        except Exception as error:
            log.error("settings could not be read again; the old ones stay", error=repr(error), exc_info=True)
        notify(READY="1")

    def _reload(self) -> None:
        recorder = self._recorder
        if recorder is None or not recorder.running:
            log.warning(
                "settings are not read again: the recorder does not run yet, or no more; send SIGHUP later"
            )
            return
        new = self._reread()
        topics = self._assembly.topics(new)
        found = changes(self._started, self._settings, new)
        recorder.change(new)
        self._set_up_log(new)
        self._settings, self._topics = new, topics
        for consumer in self._consumers:
            consumer.change(topics)
        if self._retention is not None:
            self._retention.change(new.retention_schedule)
        log.info(
            "settings read again",
            changed={key: f"{_said(before)} → {_said(after)}" for key, (before, after) in found.live.items()},
            needs_restart=found.restart,
        )


def _said(value: object) -> object:
    return "not set" if value is None else value
