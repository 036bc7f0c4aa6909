"""Where a topic's messages go: a table, a normaliser, nowhere, or where the rows themselves say. Pure.

A pattern is a topic in which `*` stands for any characters, also none. Of the patterns that fit the most specific one
wins: one without `*` before one with, then the one with more other characters. A topic that none fits is the name of
its rows' table; a row's own `table` key comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recorder.errors import SettingsError
from recorder.settings_sources import which_table

IGNORE = "ignore"
NORMALISER = "normaliser:"
CACHED_TOPICS = 10_000
"""Topics whose way is remembered; a publisher that makes up topics costs time, not memory."""


@dataclass(frozen=True)
class Route:
    """Where the messages of one pattern go; `pattern` is empty for topics that no pattern fits.

    At most one of the others is set; with none of them the topic names the table.
    """

    pattern: str
    table: str = ""
    normaliser: str = ""
    ignored: bool = False


DEFAULT = Route("")


class TopicMap:
    """The routes of all topics. `topics` maps patterns to `ignore`, `normaliser:NAME`, or a table's name."""

    def __init__(self, topics: Mapping[str, str]):
        self.routes = tuple(
            _route(pattern, goal) for pattern, goal in sorted(topics.items(), key=lambda item: _rank(item[0]))
        )
        self._patterns = [(_compiled(route.pattern), route) for route in self.routes]
        self._found: dict[str, Route] = {}

    def route(self, topic: str) -> Route:
        """Where messages of a topic go."""
        found = self._found.get(topic)
        if found is None:
            if len(self._found) >= CACHED_TOPICS:
                self._found.clear()
            found = next((route for pattern, route in self._patterns if pattern.fullmatch(topic)), DEFAULT)
            self._found[topic] = found
        return found

    @property
    def normalisers(self) -> tuple[str, ...]:
        """The normalisers it names, each once."""
        return tuple(dict.fromkeys(route.normaliser for route in self.routes if route.normaliser))

    def check(self, tables: Iterable[str], normalisers: Iterable[str]) -> None:
        """Refuse a route to a table or normaliser that is not there.

        Raises:
            SettingsError: one line for each, with the nearest name there is.
        """
        known, installed = sorted(tables), sorted(normalisers)
        problems = [
            f"topics: {route.pattern!r} goes to table {route.table!r}, which no loaded pack has"
            f"{which_table(route.table, known)}"
            for route in self.routes
            if route.table and route.table not in known
        ]
        problems += [
            f"topics: {route.pattern!r} goes to normaliser {route.normaliser!r}; installed are {', '.join(installed)}"
            for route in self.routes
            if route.normaliser and route.normaliser not in installed
        ]
        if problems:
            raise SettingsError(*problems)


def _route(pattern: str, goal: str) -> Route:
    if goal == IGNORE:
        return Route(pattern, ignored=True)
    if goal.startswith(NORMALISER):
        return Route(pattern, normaliser=goal.removeprefix(NORMALISER))
    return Route(pattern, table=goal)


def _rank(pattern: str) -> tuple[bool, int, str]:
    """The most specific pattern sorts first; the name decides between equals, so that it is the same everywhere."""
    return ("*" in pattern, -len(pattern.replace("*", "")), pattern)


def _compiled(pattern: str) -> re.Pattern[str]:
    # Runs of stars are one: each more would multiply the ways to try.
    parts = re.sub(r"\*+", "*", pattern).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
