"""Partitions as Parquet files, in a folder or a bucket: written, read back, and given a receipt.

    write_partition(source, store) -> Archived     write what the archive lacks, verify it
    partitions(store) -> Iterator[Partition]       what it holds
    check(store, place) -> Checked                 read a partition back, and say what is wrong where
    restore_partition(target, store, place) -> Restored    its rows back into a table, each once
    open_store(url) -> Store                       a folder, or s3://bucket/prefix

`layout` says what is called how, `manifest` what is in the JSON files, `rowhash` how rows are summed up, `write` in
which order things become durable. Drops nothing of a table, and schedules nothing.
"""

from retention.archive.layout import Place, place_of
from retention.archive.manifest import FileEntry, Manifest, Receipt
from retention.archive.parquet import Limits, read_files
from retention.archive.pieces import Partition, Piece, partition_of, partitions, places
from retention.archive.restore import Restored, restore_partition
from retention.archive.rowhash import Sums, identity_sum_sql, sums_of
from retention.archive.source import Source
from retention.archive.store import Entry, FolderStore, Store
from retention.archive.store_url import open_store
from retention.archive.target import Target, Times
from retention.archive.verify import Checked, check
from retention.archive.write import Archived, write_partition

__all__ = [
    "Archived",
    "Checked",
    "Entry",
    "FileEntry",
    "FolderStore",
    "Limits",
    "Manifest",
    "Partition",
    "Piece",
    "Place",
    "Receipt",
    "Restored",
    "Source",
    "Store",
    "Sums",
    "Target",
    "Times",
    "check",
    "identity_sum_sql",
    "open_store",
    "partition_of",
    "partitions",
    "place_of",
    "places",
    "read_files",
    "restore_partition",
    "sums_of",
    "write_partition",
]
