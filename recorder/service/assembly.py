"""Puts the parts of a service together by its settings; wrong settings show here, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import entry_points

from recorder.backoff import Backoff
from recorder.bus.base import Subscription
from recorder.bus.open import open_subscription
from recorder.bus.options import BusOptions
from recorder.errors import RecorderError, SettingsError
from recorder.ingest.normalisers import GROUP, open_normaliser
from recorder.normalise.base import Normaliser
from recorder.normalise.order_ids import OrderIds
from recorder.packs import packs_of
from recorder.recorder import Recorder
from recorder.service.consumer import Consumer
from recorder.service.rows import MessageRows
from recorder.service.topics import TopicMap
from recorder.settings import Settings

BUS_BACKOFF_S = (0.1, 30.0)


class Assembly:
    """See the module. `settings` are those of the start: what is opened later must not differ from what is open.

    Raises:
        SettingsError: they cannot be used.
    """

    def __init__(self, settings: Settings):
        self.order_ids = OrderIds(settings.order_ids_max)
        self._settings = settings
        self._packs = packs_of(settings)
        self._options = BusOptions(
            window_messages=settings.bus_window_messages,
            window_bytes=settings.bus_window_bytes,
            allow_remote=settings.bus_allow_remote,
        )

    @property
    def archives(self) -> bool:
        """Whether any table's rows are archived before they go."""
        tables = (table for pack in self._packs for table in pack.tables)
        return any(self._settings.for_table(table).archive_after_days is not None for table in tables)

    @property
    def tables(self) -> Collection[str]:
        """The names of the tables of the loaded packs."""
        return [table.name for pack in self._packs for table in pack.tables]

    def topics(self, settings: Settings) -> TopicMap:
        """Where messages go by these settings.

        Raises:
            SettingsError: to a table or a normaliser that is not there, or whose own settings are wrong.
        """
        topics = TopicMap(settings.topics)
        topics.check(self.tables, (entry.name for entry in entry_points(group=GROUP)))
        for name in topics.normalisers:
            self.open_normaliser(name)
        return topics

    def recorder(self) -> Recorder:
        """The recorder, not started; it waits for a database that is a server."""
        settings = self._settings
        return Recorder(settings, packs=self._packs, wait_for_database=not settings.target.embedded)

    def consumers(self) -> list[Callable[[Recorder, TopicMap], Consumer]]:
        """What makes the consumer of each bus, once the recorder runs.

        Raises:
            SettingsError: a bus's URL is none.
        """
        return [self._consumer(url) for url in self._settings.bus]

    def open_normaliser(self, name: str) -> Normaliser:
        """A normaliser.

        Raises:
            SettingsError: it is not there, or its settings are wrong.
        """
        try:
            return open_normaliser(name, self._settings.normalisers.of(name))
        except Exception as error:
            raise SettingsError(f"normaliser {name}: {error}") from error

    def _consumer(self, url: str) -> Callable[[Recorder, TopicMap], Consumer]:
        options = self._options

        def subscribe() -> Subscription:
            return open_subscription(url, options)

        try:
            subscription = subscribe()
        except RecorderError as error:
            raise SettingsError(str(error)) from error

        def make(recorder: Recorder, topics: TopicMap) -> Consumer:
            rows = MessageRows(
                recorder.tables,
                subscription.name,
                recorder.recorder_run_id,
                open_normaliser=self.open_normaliser,
                order_ids=self.order_ids,
            )
            return Consumer(
                recorder,
                subscription,
                subscribe,
                rows,
                topics,
                window=(options.window_messages, options.window_bytes),
                backoff=Backoff(*BUS_BACKOFF_S),
            )

        return make
