"""Laws of the head of a Native answer: the zone goes in where it is missing, and nothing else changes."""

from __future__ import annotations

import pytest

from recorder.devserver import native

HEAD = b"\x03\x02\x01s\x06String\x01a\x02bc\x01t\x08DateTime\1\0\0\0\2\0\0\0\x01n\x05UInt8\7\x08"
"""Three columns of two rows: texts, times, numbers."""
KINDS = ["String", "DateTime('Asia/Tokyo')", "UInt8"]


def test_the_zone_goes_into_the_head_and_the_rest_stays() -> None:
    """Bytes of the values and of what follows the block are as they were."""
    later = HEAD + b"\x03\x01anything"
    assert native.has_times(later)
    assert native.with_types(later, KINDS) == later.replace(b"\x08DateTime", b"\x16DateTime('Asia/Tokyo')")


def test_a_head_that_is_cut_asks_for_more() -> None:
    """Wherever it is cut before the last type has come; with that, what it says does not change any more."""
    whole = HEAD.index(b"UInt8") + 5
    for size in range(whole):
        with pytest.raises(native.MoreError):
            native.has_times(HEAD[:size])
    for size in range(whole, len(HEAD) + 1):
        assert native.has_times(HEAD[:size])


@pytest.mark.parametrize(
    "kinds", [[], ["String"], ["String", "DateTime", "UInt8"], ["x", "String", "DateTime('UTC')"]]
)
def test_without_a_zone_to_say_nothing_changes(kinds: list[str]) -> None:
    """Too few types, types without one, or types that are not those of the answer."""
    assert native.with_types(HEAD, kinds) == HEAD


def test_a_type_of_unknown_length_is_told() -> None:
    """Only where another column stands behind it: of the last one, nobody needs to know the length."""
    last = b"\x01\x01\x01j\x04JSON\0\0\0"
    assert not native.has_times(last)
    with pytest.raises(native.OtherError):
        native.has_times(b"\x02\x01\x01j\x04JSON\0\0\0\x01t\x08DateTime\0\0\0\0")
    with pytest.raises(native.OtherError):
        native.has_times(b"\x02\x01\x01j\x08Decimal(\0\0\0\x01t\x08DateTime\0\0\0\0")


def test_long_names_have_their_length_in_two_bytes() -> None:
    """As the format's varint."""
    zone = f"DateTime('{'x' * 200}')"
    told = native.with_types(b"\x01\x00\x01t\x08DateTime", [zone])
    assert told == b"\x01\x00\x01t" + bytes([len(zone) & 0x7F | 0x80, len(zone) >> 7]) + zone.encode()
