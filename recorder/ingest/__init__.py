"""Recording files: captures, ndjson, Parquet. `run_ingest` is the whole of it; the command is `recorder ingest`."""

from __future__ import annotations

from recorder.ingest.errors import (
    FileDamaged,
    FileTruncated,
    FileUnreadable,
    FormatUnknown,
    IngestError,
    RowsTooOld,
    TableHeld,
    TableUnknown,
    WrongUse,
)
from recorder.ingest.options import IngestOptions
from recorder.ingest.result import FileResult, IngestResult, Progress
from recorder.ingest.run import run_ingest
from recorder.ingest.source import Format

__all__ = [
    "FileDamaged",
    "FileResult",
    "FileTruncated",
    "FileUnreadable",
    "Format",
    "FormatUnknown",
    "IngestError",
    "IngestOptions",
    "IngestResult",
    "Progress",
    "RowsTooOld",
    "TableHeld",
    "TableUnknown",
    "WrongUse",
    "run_ingest",
]
