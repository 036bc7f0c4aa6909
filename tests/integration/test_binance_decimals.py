"""Amounts of private messages, from the venue's text into the database and out again: every digit."""

from __future__ import annotations

import pathlib
import random
from typing import TYPE_CHECKING

from harness.backends import Backend
from harness.binance_private import (
    account_position,
    account_update,
    balance,
    futures_trade,
    position,
    raw,
    spot_trade,
)
from harness.ingest_files import START_NS, write_lines

from recorder import Recorder, Settings
from recorder.ingest import IngestOptions, run_ingest

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

WHOLE, PART = 20, 18
"""Digits before and behind the point: 38 together, as a Decimal(38, 18) has."""
MESSAGES = 300


def amount(chance: random.Random, whole: int | None = None) -> str:
    """A decimal number above zero of at most so many digits, all of them as often as fewer."""
    before = chance.choice([1, WHOLE, chance.randint(1, WHOLE)]) if whole is None else whole
    behind = chance.choice([0, PART, chance.randint(1, PART)])
    digits = [str(chance.randint(1, 9)), *(str(chance.randint(0, 9)) for _ in range(before - 1))]
    part = "".join(str(chance.randint(0, 9)) for _ in range(behind))
    return "".join(digits) + (f".{part}" if part else "")


def plain(text: str) -> str:
    """The same number as ClickHouse writes it: without zeros that say nothing."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def test_every_digit_is_in_the_database(
    backend: Backend, client: Client, database: str, tmp_path: pathlib.Path
) -> None:
    """Any text of up to 20 digits before the point and 18 behind it, of either sign where there is one, is the number
    that the database has: fills, fees, orders, positions, wallets and their sums."""
    chance = random.Random(38)
    lines, expected = [], set()
    for number in range(MESSAGES):
        qty, price, limit, fee = (amount(chance) for _ in range(4))
        sign = chance.choice(["", "-"])
        held, entry, wallet = amount(chance), amount(chance), amount(chance)
        free = amount(chance, WHOLE - 1)
        trade = {"l": qty, "L": price, "n": sign + fee, "q": qty, "p": limit, "i": number, "c": f"c-{number}"}
        for message in (
            spot_trade(number, N="BNB", **trade),
            futures_trade(number + 1, **trade),
            account_update(
                [position(f"S{number}", sign + held, ep=entry)], [balance(f"A{number}", sign + wallet)]
            ),
            account_position((f"F{number}", free, "0")),
        ):
            lines.append(b"%d %s" % (START_NS + len(lines), raw(message)))
        for venue, fill in (("spot", number), ("usdm", number + 1)):
            expected.add(("fill", f"{venue} {fill}", plain(qty), plain(price), sign + plain(fee)))
            expected.add(("order", f"{venue} {number}", plain(qty), plain(limit), ""))
        expected.add(("position", f"S{number}", sign + plain(held), plain(entry), ""))
        expected.add(("wallet", f"A{number}", sign + plain(wallet), "", ""))
        expected.add(("wallet", f"F{number}", plain(free), plain(free), ""))
    settings = Settings(
        target=backend.target, database=database, data_dir=tmp_path / "data", migrate_on_start=True, ttl=False
    )
    with Recorder(settings) as recorder:
        result = run_ingest(recorder, [write_lines(tmp_path / "private.log", lines)], IngestOptions())
    assert result.ok
    assert not result.bad_records
    found = client.query(
        f"""
        SELECT 'fill', concat(splitByChar('.', venue)[2], ' ', fill_id), toString(fill_qty), toString(fill_price),
               ifNull(toString(fees), '') FROM {database}.fills
        UNION ALL SELECT 'order', concat(splitByChar('.', ifNull(venue, ''))[2], ' ', ifNull(broker_order_id, '')),
               ifNull(toString(qty), ''), ifNull(toString(limit_px), ''), '' FROM {database}.orders
        UNION ALL SELECT 'position', symbol, toString(position_qty), ifNull(toString(avg_price), ''), ''
               FROM {database}.positions_intraday
        UNION ALL SELECT 'wallet', ifNull(currency, ''), ifNull(toString(cash), ''),
               ifNull(toString(margin_available), ''), '' FROM {database}.account_state
        """
    ).result_rows
    assert {tuple(row) for row in found} == expected
    assert len(found) == len(expected)
