"""Names and values that stand in SQL come back as they were, whatever they are made of."""

from __future__ import annotations

from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.quote import quote_moment, quote_name, quote_text

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
A_FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MORE_THAN_A_CENTURY_NS = 2**62


def test_every_word_of_sql_can_be_a_column(client: Client, database: str) -> None:
    """One table with all of them; each gives back the value that was inserted into it."""
    words = [row[0].lower() for row in client.query("SELECT keyword FROM system.keywords").result_rows]
    words = sorted({*(word for word in words if " " not in word), "inf", "nan", "null"})
    table = f"{database}.words"
    columns = ", ".join(f"{quote_name(word)} UInt16" for word in words)
    client.command(f"CREATE TABLE {table} (_row UInt8, {columns}) ENGINE = MergeTree ORDER BY _row")
    names = ", ".join(map(quote_name, words))
    values = ", ".join(str(number) for number, _ in enumerate(words))
    client.command(f"INSERT INTO {table} ({names}) VALUES ({values})")
    for number, word in enumerate(words):
        name = quote_name(word)
        found = client.query(f"SELECT {name}, _row FROM {table} WHERE {name} = {number}").result_rows
        assert found == [(number, 0)], word


@A_FEW
@given(text=TEXT)
def test_a_text_comes_back(client: Client, text: str) -> None:
    """As it was, and a name is taken as it is."""
    assert client.query(f"SELECT {quote_text(text)}").result_rows == [(text,)]
    answer = client.query(f"SELECT 1 AS {quote_name(text or '_')}")
    assert list(answer.column_names) == [text or "_"]


@A_FEW
@given(ns=st.integers(-MORE_THAN_A_CENTURY_NS, MORE_THAN_A_CENTURY_NS))
def test_a_moment_comes_back_to_the_nanosecond(client: Client, ns: int) -> None:
    """Before 1970, and after 2106, too."""
    assert client.query(f"SELECT toUnixTimestamp64Nano({quote_moment(ns)})").result_rows == [(ns,)]
