"""A segmented, append-only log of Arrow record batches: what was synced to it is read back, whatever happened since.

One log is one folder with one writer and any number of readers. What stands in it can be read without this package:
the format is below, its numbers are little-endian, and its rows are Arrow IPC messages.

The folder
==========

    LOCK                      held by the writer (flock); its text says which process that is
    000000000001.wal          segments, numbered from 1 and never twice
    000000000002.wal
    000000000003.wal.new      the next segment, being zero-filled; it holds nothing yet
    000000000001.<offset>.broken
                              bytes that recovery took out of the way, a span of that segment, as they were
                              (`.broken.new`: not all of them yet)
    checkpoint                what needs no replay (`wal.checkpoint`); without it everything is replayed
    checkpoint.newer, checkpoint.broken
                              one that could not be read, kept when another took its place

A log may stand in two folders. Where one of them is missing when the log is opened, the other may be given numbers that
it has, too: such segments have nothing to do with one another, and which is older `wal.order` says.

A segment
=========

    offset          bytes
    0               P     preamble
    P               P     the same preamble again, with `copy` 1; P is a power of two from 4,096 to 1 MiB
    2 P             ...   frames, each at a multiple of 8
    after them            zeros up to the end of the file, or the end of the file

A segment is full of zeros when it gets its preambles, so that writing a frame needs no new space of the file system.
Whoever finds the first preamble broken looks for the second at 4,096, 8,192, ..., 1 MiB.

The preamble
============

    offset  type    what
    0       8 bytes 89 52 57 41 4C 0D 0A 1A  (magic: "\\x89RWAL\\r\\n\\x1a")
    8       u16     version of the format: 1
    10      u16     copy: 0 or 1
    12      u32     CRC32C of the bytes 0 to 11, and 16 to the end of the schema
    16      u32     P, bytes of one preamble
    20      u16     bytes of the log's name
    22      u16     0
    24      u32     bytes of the schema
    28      u32     0
    32      u64     number of the segment
    40      u64     epoch: a random number that the writer drew when it opened the log, and never 0
    48      u64     sequence of the first row of this segment
    56      u64     when it was made, nanoseconds since 1970
    64      u64     hash of the schema (`wal.rows.schema_hash`)
    72      ...     the log's name, UTF-8, then the schema: one encapsulated Arrow IPC message
    ...     ...     zeros up to P

A frame
=======

    offset  type    what
    0       4 bytes D7 52 46 1A  (magic)
    4       u32     CRC32C of: number of the segment (u64), its epoch (u64), offset of the frame (u64), bytes 8 to 31
    8       u32     bytes of the payload, N
    12      u32     CRC32C of the payload
    16      u8      kind
    17      u8      0
    18      u16     0
    20      u32     rows in it
    24      u64     sequence of its first row; of a frame without rows the sequence that the next row will get
    32      N       payload
    32 + N  0 to 7  zeros, up to a multiple of 8

The first checksum holds the frame's own place, so that bytes of a frame that came to stand somewhere else (in a
payload, in a copied file with another number) are no frame. A frame whose header is sound and whose payload is not
costs itself alone; after a broken header the next sound one is searched for.

    kind  payload
    1     ROWS: one encapsulated Arrow IPC record-batch message for the segment's schema, buffers compressed or not
    2     SEAL: what was frozen for one insert, JSON (`wal.seals`)
    3     VOID: tokens of seals that no longer hold, JSON (`wal.seals`)

A kind that a reader does not know is skipped: it holds no rows.

Sequences and places
====================

Rows are numbered from 0 within an epoch. A row's *place* is (epoch, sequence). Places say what was confirmed; they
are no identity of a row, which is in its columns. Frames of one epoch are in the order of their sequences. The same
place may stand in two segments, where a writer wrote again what it could not be sure to have on disk: the first one
that is read stands. A sequence that is left out was lost, and is told.
"""
