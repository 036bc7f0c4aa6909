"""Exact amounts as whole numbers: prices and quantities in 1e-9, their products in 1e-18.

The tables keep 18 decimals, so a price times a quantity is exact in them, and whole numbers need no decimal
context. Rows carry amounts as text, as a venue sends them.
"""

from __future__ import annotations

from decimal import Decimal

NANO = 10**9
"""One unit of a price or a quantity."""
ATTO = 10**18
"""One unit of an amount of money."""


def text(value: int, digits: int) -> str:
    """The decimal text of `value` x 10^-`digits`, without trailing zeros: `text(61_800_200_000_000, 9)` is
    `61800.2`."""
    sign = "-" if value < 0 else ""
    whole, rest = divmod(abs(value), 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d}".rstrip("0") if rest else f"{sign}{whole}"


def nano_text(value: int) -> str:
    """A price or quantity as text."""
    return text(value, 9)


def atto_text(value: int) -> str:
    """An amount of money as text."""
    return text(value, 18)


def nano_decimal(value: int) -> Decimal:
    """A price or quantity as an exact Decimal."""
    return Decimal(nano_text(value))


def atto_decimal(value: int) -> Decimal:
    """An amount of money as an exact Decimal."""
    return Decimal(atto_text(value))


def rounded_quotient(numerator: int, denominator: int) -> int:
    """`numerator / denominator`, both above zero, to the nearest whole number; a half goes to the even
    one."""
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))
