"""Parts of a batch: what is absent from the table, and halves. Pure.

A partition of an insert is committed whole or not at all, so a batch that was sent is judged by partition: any row
there means the partition is in. Those that are not are sent again under the *parent's* token (a derived one doubles).

A day may be cut by symbol, too, into groups that this module does not know: the table may have had others when the
batch was sent than it has now. All rows of a day with one symbol lie in one partition, whatever the groups, so each
symbol of a day is judged by itself.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from recorder.batch import Batch, local_times_ns, partition_keys
from schemas.policy import SYMBOL, Partition

Identities = Set[tuple[int, int]]


@dataclass(frozen=True)
class Verdict:
    """What a look-up says of a batch that was sent.

    `absent` are the partitions to send again, None where all are in. `partly` names partitions of which some rows
    are there and some are not, which no insert of ours can have made.
    """

    present_rows: int
    absent: Batch | None
    partly: tuple[int, ...] = ()


def judge(batch: Batch, present: Identities, partition: Partition) -> Verdict:
    """Compare a sent batch with what the table has of it."""
    if not present:
        return Verdict(0, batch)
    there = np.fromiter(
        (identity in present for identity in batch.identities()), dtype=bool, count=batch.rows
    )
    if there.all():
        return Verdict(batch.rows, None)
    times = partition_keys(local_times_ns(batch.data), partition)
    keys = times if partition is not Partition.DAY else _with_symbols(batch, times)
    with_rows = np.unique(keys[there])
    in_absent = ~np.isin(keys, with_rows)
    partly = tuple(
        dict.fromkeys(int(times[keys == key][0]) for key in with_rows if not there[keys == key].all())
    )
    return Verdict(int(there.sum()), batch.only(in_absent) if in_absent.any() else None, partly)


def _with_symbols(
    batch: Batch, times: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A number for each pair of time and symbol; where there is no symbol, for each time."""
    if SYMBOL not in batch.data.schema.names:
        return times
    symbols = pc.dictionary_encode(batch.data[SYMBOL], null_encoding="encode").indices
    _, inverse = np.unique(np.stack([times, np.asarray(symbols)]), axis=1, return_inverse=True)
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]] = inverse.reshape(-1).astype(np.int64)
    return numbers


def without(batch: Batch, present: Identities) -> Batch | None:
    """A batch of a source, before its first insert, without the rows that are there or that it names twice.

    What is left is a new batch with a token of its own; None if nothing is.
    """
    keep = _named_first(batch)
    if present:
        keep &= np.fromiter(
            (identity not in present for identity in batch.identities()), dtype=bool, count=batch.rows
        )
    if keep.all():
        return batch
    if not keep.any():
        return None
    return batch.only(keep).renamed()


def _named_first(batch: Batch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows are the first of their identity."""
    logs, seqs = np.asarray(batch.data["_log"]), np.asarray(batch.data["_seq"])
    keep = np.ones(batch.rows, dtype=bool)
    same_log = logs[1:] == logs[:-1]
    if not (same_log & (seqs[1:] > seqs[:-1])).all():
        order = np.lexsort((seqs, logs))  # stable: of equals the first comes first
        again = (logs[order[1:]] == logs[order[:-1]]) & (seqs[order[1:]] == seqs[order[:-1]])
        keep[order[1:][again]] = False
    return keep


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The two halves of a batch, each with a token of its own: the same token with other rows is swallowed."""
    middle = batch.rows // 2
    return batch.part(0, middle).renamed(), batch.part(middle, batch.rows).renamed()
