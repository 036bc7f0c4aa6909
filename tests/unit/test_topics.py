"""Where topics go: the most specific pattern, the same everywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.errors import SettingsError
from recorder.service.topics import CACHED_TOPICS, DEFAULT, Route, TopicMap

ROUTES = {
    "*": "ignore",
    "md.*": "market_data",
    "md.*.trade": "normaliser:binance",
    "md.binance.*": "normaliser:internal",
    "md.binance.trade": "book_deltas",
    "a+b.(c)": "orders",
}


@pytest.mark.parametrize(
    ("topic", "route"),
    [
        ("md.binance.trade", Route("md.binance.trade", table="book_deltas")),
        ("md.binance.quote", Route("md.binance.*", normaliser="internal")),
        ("md.other.trade", Route("md.*.trade", normaliser="binance")),
        ("md.", Route("md.*", table="market_data")),
        ("md", Route("*", ignored=True)),
        ("a+b.(c)", Route("a+b.(c)", table="orders")),
        ("aab.c", Route("*", ignored=True)),
        ("two\nlines", Route("*", ignored=True)),
    ],
)
def test_the_most_specific_pattern_wins(topic: str, route: Route) -> None:
    """An exact one first, then the one with more characters of its own; only `*` is special."""
    assert TopicMap(ROUTES).route(topic) == route


def test_a_topic_without_a_pattern_names_its_table() -> None:
    """It has the default route."""
    assert TopicMap({"x.*": "ignore"}).route("orders") is DEFAULT


@settings(deadline=None)
@given(
    st.dictionaries(st.text("ab*.", max_size=6), st.sampled_from(["t", "ignore"])), st.text("ab.", max_size=6)
)
def test_the_order_of_settings_does_not_matter(routes: dict[str, str], topic: str) -> None:
    """However the settings are written, a topic goes the same way."""
    found = {
        TopicMap(dict(some)).route(topic)
        for some in itertools.islice(itertools.permutations(routes.items()), 24)
    }
    assert len(found) == 1


@settings(deadline=None)
@given(st.text("ab*", max_size=5), st.text("ab", max_size=8))
def test_a_star_stands_for_any_characters(pattern: str, topic: str) -> None:
    """Against the plain definition, by trying every way."""

    def fits(rest: str, text: str) -> bool:
        if not rest:
            return not text
        if rest[0] == "*":
            return any(fits(rest[1:], text[i:]) for i in range(len(text) + 1))
        return bool(text) and rest[0] == text[0] and fits(rest[1:], text[1:])

    assert (TopicMap({pattern: "t"}).route(topic) is not DEFAULT) == fits(pattern, topic)


def test_made_up_topics_take_no_memory() -> None:
    """What is remembered is bounded."""
    topics = TopicMap({"md.*": "market_data"})
    for n in range(2 * CACHED_TOPICS + 5):
        topics.route(f"md.{n}")
    assert len(topics._found) <= CACHED_TOPICS


def test_routes_to_nowhere_are_refused_all_at_once() -> None:
    """One line each, with what was meant."""
    topics = TopicMap({"a": "oders", "b": "normaliser:nance", "c": "orders", "d": "ignore", "e": "zzz"})
    with pytest.raises(SettingsError) as error:
        topics.check(["orders", "fills"], ["binance"])
    assert error.value.problems == (
        "topics: 'a' goes to table 'oders', which no loaded pack has; did you mean \"orders\"?",
        "topics: 'e' goes to table 'zzz', which no loaded pack has; there are fills, orders: correct "
        "the name, or add the pack that has it to packs",
        "topics: 'b' goes to normaliser 'nance'; installed are binance",
    )
    TopicMap({"c": "orders"}).check(["orders"], [])
