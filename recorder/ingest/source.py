"""One file as a source of rows: what it holds, and who its rows are.

The identity of a file is the SHA-256 of its *unpacked* content, so that a capture and its gzip are one source:
packing a file after it was recorded, which is what people do with captures, must not record it twice. The price is
that a packed file is unpacked twice, once to know it and once to record it; that first pass also finds a damaged
file before a row of it is recorded. A Parquet file is known by the bytes of the file as it is.

A file that has grown, or a whole file after a truncated one, has other content and is another source.
"""

from __future__ import annotations

import enum
import os
import pathlib
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from recorder.identity import source_log
from recorder.ingest.compression import Compression, Truncation, Unpacked, compression_of, unread_packing
from recorder.ingest.errors import FileUnreadable, FormatUnknown, WrongUse

SNIFF_BYTES = 256 * 1024
_SNIFF_LINES = 20
_PARQUET_MAGIC = b"PAR1"
_CAPTURE_LINE = re.compile(rb"\d{9,20} +[\[{]")


class Format(enum.StrEnum):
    """What the content of a file is."""

    BINANCE_CAPTURE = "binance-capture"
    NDJSON = "ndjson"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Source:
    """One file, looked at once. `log` is the `_log` of its rows; `size_bytes` that of the file as it lies there."""

    path: pathlib.Path
    format: Format | None
    """None for an empty file."""
    compression: Compression
    size_bytes: int
    modified_ns: int
    content_bytes: int
    digest: str
    log: int
    truncation: Truncation | None = None

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    @property
    def empty(self) -> bool:
        """Whether there is no content at all."""
        return self.content_bytes == 0


def open_file(path: pathlib.Path) -> BinaryIO:
    """The regular file at `path`, opened for reading.

    Raises:
        WrongUse: there is none, or it is a directory, a pipe or a device.
        FileUnreadable: the operating system refuses it.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise WrongUse(f"{path} is a directory; name the files in it: recorder ingest {path}/*")
        if not stat.S_ISREG(mode):
            raise WrongUse(
                f"{path} is no regular file; a file is read twice, first to know who its rows are, "
                "so save a stream to a file first"
            )
        return path.open("rb")
    except FileNotFoundError:
        raise WrongUse(f"{path}: no such file; name files that are there") from None
    except OSError as error:
        raise FileUnreadable(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error


def inspect(
    path: pathlib.Path, wanted: Format | None = None, on_bytes: Callable[[int], None] = lambda read: None
) -> Source:
    """Read a file once and say what it is. `on_bytes` is told how much of the file was read.

    Raises:
        WrongUse, FormatUnknown, FileUnreadable: as the names say.
        FileDamaged: its packing contradicts itself.
    """
    with open_file(path) as file:
        try:
            return _inspect(file, path, wanted, on_bytes)
        except OSError as error:
            raise FileUnreadable(f"{path}: reading failed: {os.strerror(error.errno or 0)}") from error


def _inspect(
    file: BinaryIO, path: pathlib.Path, wanted: Format | None, on_bytes: Callable[[int], None]
) -> Source:
    before = os.fstat(file.fileno())
    head = file.read(8)
    file.seek(0)
    if packing := unread_packing(head):
        raise FormatUnknown(
            f"{path} is packed with {packing}; unpack it first (gzip and plain files are read)"
        )
    compression = compression_of(head)
    content = Unpacked(file, compression, str(path))
    first = b""
    content_bytes = 0
    for block in content:
        content_bytes += len(block.content)
        if len(first) < SNIFF_BYTES:
            first += block.content[: SNIFF_BYTES - len(first)]
        on_bytes(block.file_bytes)
    return Source(
        path=path,
        format=_format(path, first, compression, wanted) if content_bytes else None,
        compression=compression,
        size_bytes=before.st_size,
        modified_ns=before.st_mtime_ns,
        content_bytes=content_bytes,
        digest=content.digest.hexdigest(),
        log=source_log("file", content.digest.digest()),
        truncation=content.truncation,
    )


def _format(path: pathlib.Path, first: bytes, compression: Compression, wanted: Format | None) -> Format:
    """The format named, or the one the content tells; Parquet always tells."""
    is_parquet = first.startswith(_PARQUET_MAGIC)
    if is_parquet and compression is not Compression.NONE:
        raise WrongUse(f"{path} is a Parquet file packed with {compression}; unpack it first")
    if wanted is Format.PARQUET and not is_parquet:
        raise WrongUse(
            f"{path} is no Parquet file: it begins with {first[:4]!r}, not {_PARQUET_MAGIC!r}; leave --format out"
        )
    if is_parquet and wanted not in (None, Format.PARQUET):
        raise WrongUse(f"{path} is a Parquet file, not {wanted}; leave --format out")
    return wanted or guess_format(path, first)


def guess_format(path: pathlib.Path, first: bytes) -> Format:
    """The format of content that begins with `first`: the first line that looks like one of them decides.

    Raises:
        FormatUnknown: none of the first lines does.
    """
    if first.startswith(_PARQUET_MAGIC):
        return Format.PARQUET
    for line in first.removeprefix(b"\xef\xbb\xbf").split(b"\n", _SNIFF_LINES)[:_SNIFF_LINES]:
        if _CAPTURE_LINE.match(line):
            return Format.BINANCE_CAPTURE
        if line.lstrip().startswith(b"{"):
            return Format.NDJSON
    formats = ", ".join(Format)
    raise FormatUnknown(
        f"{path}: the content looks like none of {formats} (it begins with {first[:24]!r}); "
        "name its format with --format"
    )
