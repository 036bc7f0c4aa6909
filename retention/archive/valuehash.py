"""The hash of values, column by column, as `rowhash` defines it: arrays of Arrow in, one number a value out.

Works through a column in stretches that fit the processor's cache, and hashes a value that repeats once. Knows nothing
of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as kinds

from retention.errors import ArchiveError

Words: TypeAlias = npt.NDArray[np.uint64]
NULL = np.uint64(0x6A09E667F3BCC909)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
STEPS = (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB))
LAST = np.uint64(31)
"""The shifts and factors of `mix`, and its last shift."""
STRETCH_ROWS, STRETCH_BYTES = 32_768, 256 * 2**10
"""A column is worked through in stretches about so large: what numpy needs beside one is several times that."""
MIXED_AT_ONCE = 16_384
MOST_PLACES = 64
SAMPLES, SAMPLE_ROWS = 8, 32
_PLAIN = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_FLOATS = {2: np.float16, 4: np.float32, 8: np.float64}


def mix(words: Words) -> Words:
    """The mixing function of `rowhash`'s table, of an array of shape (n,)."""
    return _mixed(words.copy())


def hashes(values: pa.Array) -> Words:
    """The hash of each value, shape (n,); an array of the caller's own.

    Raises:
        ArchiveError: there is no rule for their type.
    """
    if values.null_count == len(values):
        return np.full(len(values), NULL)
    found = _values(values)
    if values.null_count:
        found[values.is_null().to_numpy(zero_copy_only=False)] = NULL
    return found


def add_hashes(total: Words, values: pa.Array, seed: np.uint64) -> None:
    """Add `mix(hash + seed)` of each value to the total in its place; both of shape (n,).

    Raises:
        ArchiveError: there is no rule for their type.
    """
    if _repeats(values):
        values = values.dictionary_encode()
    if kinds.is_dictionary(values.type):
        total += _of_indices(values, _mixed(_known(values) + seed))
        return
    start = 0
    for some in _stretches(values):
        found = hashes(some)
        found += seed
        total[start : start + len(found)] += _mixed(found)
        start += len(found)


def _mixed(words: Words) -> Words:
    """`mix` in place, a stretch at a time."""
    room = np.empty(min(len(words), MIXED_AT_ONCE), np.uint64)
    for start in range(0, len(words), MIXED_AT_ONCE):
        some = words[start : start + MIXED_AT_ONCE]
        shifted = room[: len(some)]
        for shift, factor in STEPS:
            some ^= np.right_shift(some, shift, out=shifted)
            some *= factor
        some ^= np.right_shift(some, LAST, out=shifted)
    return words


def _stretches(values: pa.Array) -> Iterator[pa.Array]:
    step = max(1, min(STRETCH_ROWS, len(values) * STRETCH_BYTES // max(1, values.nbytes)))
    return (values.slice(start, step) for start in range(0, len(values), step))


def _repeats(values: pa.Array) -> bool:
    """Whether these are texts of which few differ, to go by samples: then it is quicker to hash each of them once."""
    if not (kinds.is_binary(values.type) or kinds.is_string(values.type)):
        return False
    if len(values) <= 2 * SAMPLES * SAMPLE_ROWS:
        return False
    starts = np.linspace(0, len(values) - SAMPLE_ROWS, SAMPLES, dtype=np.int64)
    sample = values.take(pa.array(np.add.outer(starts, np.arange(SAMPLE_ROWS)).ravel()))
    return len(sample.unique()) * 4 <= len(sample)


def _known(values: pa.DictionaryArray) -> Words:
    """The hashes of a dictionary, and in the end that of NULL."""
    return np.append(hashes(values.dictionary), NULL)


def _of_indices(values: pa.DictionaryArray, known: Words) -> Words:
    """What is known, for each value."""
    indices = values.indices
    if indices.null_count:
        # Wider first: a full dictionary has no index of its type left for NULL.
        indices = indices.cast(pa.int64()).fill_null(len(values.dictionary))
    found: Words = known.take(indices.to_numpy(zero_copy_only=False))
    return found


def _values(values: pa.Array) -> Words:
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return hashes(values.storage)
    if kinds.is_dictionary(kind):
        return _of_indices(values, _known(values))
    if kinds.is_boolean(kind):
        values = values.cast(pa.uint8())
        kind = values.type
    if kinds.is_binary_view(kind) or kinds.is_string_view(kind):
        values, kind = values.cast(pa.large_binary()), pa.large_binary()
    if kinds.is_decimal(kind) or kinds.is_fixed_size_binary(kind):
        width = kind.byte_width
        if width % 8 == 0 and width:
            return _words(values, width)
        start = values.offset * width
        stops = start + width * np.arange(len(values) + 1, dtype=np.int64)
        return _bytes(values.buffers()[1], stops)
    if kinds.is_primitive(kind):
        return _mixed(_bits(values))
    if kinds.is_binary(kind) or kinds.is_string(kind):
        return _bytes(values.buffers()[2], _stops(values, np.int32))
    if kinds.is_large_binary(kind) or kinds.is_large_string(kind):
        return _bytes(values.buffers()[2], _stops(values, np.int64))
    if kinds.is_list(kind) or kinds.is_map(kind) or kinds.is_large_list(kind):
        stops = _stops(values, np.int64 if kinds.is_large_list(kind) else np.int32)
        first, last = int(stops[0]), int(stops[-1])
        if kinds.is_map(kind):
            pair = [hashes(side.slice(first, last - first)) for side in (values.keys, values.items)]
            items = _folded(np.stack(pair, axis=1).ravel(), 2 * np.arange(last - first + 1))
        else:
            items = hashes(values.values.slice(first, last - first))
        return _folded(items, stops - first)
    raise ArchiveError(f"no rule to hash {kind}; leave the column out, or have its type added")


def _bits(values: pa.Array) -> Words:
    """Numbers of fixed width as 64 bits each."""
    kind = values.type
    width = kind.bit_width // 8
    known: Any = (
        _FLOATS if kinds.is_floating(kind) else _UNSIGNED if kinds.is_unsigned_integer(kind) else _PLAIN
    )
    numbers = np.frombuffer(values.buffers()[1], known[width], len(values), values.offset * width)
    if not kinds.is_floating(kind):
        return numbers.astype(np.int64 if known is _PLAIN else np.uint64).view(np.uint64)
    doubles = numbers.astype(np.float64)
    if np.isnan(doubles.min(initial=0)):  # quicker than to look at each, and most columns have none
        doubles[np.isnan(doubles)] = np.nan
    return doubles.view(np.uint64)


def _words(values: pa.Array, width: int) -> Words:
    """The hash of values of so many bytes, a multiple of 8: as `_bytes`, without looking for where each begins."""
    words = np.frombuffer(values.buffers()[1], "<u8", len(values) * width // 8, values.offset * width)
    sums = np.repeat(mix(np.full(1, width, np.uint64)), len(values))
    for place, step in enumerate(_steps(width // 8)):
        sums += _mixed(words[place :: width // 8] + step)
    return _mixed(sums)


def _stops(values: pa.Array, width: Any) -> npt.NDArray[np.int64]:
    """Where each value begins, and the last one ends: shape (n + 1,)."""
    size = np.dtype(width).itemsize
    stops = np.frombuffer(values.buffers()[1], width, len(values) + 1, values.offset * size)
    return stops.astype(np.int64)


def _bytes(content: pa.Buffer | None, stops: npt.NDArray[np.int64]) -> Words:
    """The hash of each stretch of bytes between two stops."""
    first, last = int(stops[0]), int(stops[-1])
    data = np.zeros(last - first + 8, np.uint8)
    if last > first:
        data[:-8] = np.frombuffer(cast(Any, content), np.uint8, last - first, first)
    lengths = np.diff(stops)
    counts = -(-lengths // 8)
    ends = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
    # A word may begin at any byte: a view of one word a byte, of which some are copied out.
    every: Words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    words = every[np.repeat(stops[:-1] - first, counts) + 8 * within]
    rest = np.minimum(np.repeat(lengths, counts) - 8 * within, 8).astype(np.uint64)
    words &= np.uint64(2**64 - 1) >> (np.uint64(64) - np.uint64(8) * rest)
    return _folded(words, ends, lengths.astype(np.uint64))


def _folded(items: Words, ends: npt.NDArray[np.int64], lengths: Words | None = None) -> Words:
    """One hash for each run of items between two ends, the first of which is 0; the items' array is used up."""
    counts = np.diff(ends)
    sums = _mixed(counts.astype(np.uint64) if lengths is None else lengths)
    filled = np.flatnonzero(counts)
    longest = int(counts.max(initial=0))
    if 0 < longest <= MOST_PLACES and len(items) == longest * len(filled):
        # As with the levels of a book: as many in each, or none. Those of one place together are quicker.
        places = np.ascontiguousarray(items.reshape(-1, longest).T)
        places += _steps(longest)[:, np.newaxis]
        sums[filled] += _mixed(places.reshape(-1)).reshape(places.shape).sum(axis=0, dtype=np.uint64)
        return _mixed(sums)
    # Counted through, less what was counted before its run: the place of each item in its own.
    items += _steps(len(items))
    items -= np.repeat(ends[:-1].astype(np.uint64) * GOLDEN, counts)
    running = np.zeros(len(items) + 1, np.uint64)
    np.cumsum(_mixed(items), out=running[1:])
    sums += np.diff(running.take(ends))
    return _mixed(sums)


def _steps(places: int) -> Words:
    """What is added to the items of so many places before they are mixed."""
    steps: Words = np.arange(1, places + 1, dtype=np.uint64) * GOLDEN
    return steps
