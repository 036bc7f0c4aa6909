"""The whole log against a plain list: whatever fails, is cut off, rots or is purged, what is durable arrives once.

The real writer, recovery, reader, seals, checkpoint, purge and replay work on a disk that forgets what was not synced
(`harness.forgetful_disk`), in one thread, so that an example can be repeated. The owner is a small recorder: it seals,
sends what is sealed and durable to a table, confirms, settles, purges, and after each start sends what a replay gives.
`RECORDER_TEST_EXAMPLES` says how many examples are tried.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

from harness.forgetful_disk import ForgetfulDisk
from harness.wal_log import OneThread
from harness.wal_making import NAME, SCHEMA, rows_of
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wal import names
from wal.checkpoint import Checkpoint, CheckpointFile
from wal.damage import Damage, Harm
from wal.errors import FormatError, LogFull
from wal.format import Kind, read_preamble
from wal.frames import Frame, payload, scan
from wal.options import LogOptions
from wal.places import PlaceSet, Range
from wal.purge import purge
from wal.reader import LogReader
from wal.replay import Replay, ReplayBatch
from wal.seals import Seal, pack_seal, pack_void, read_seal, read_void
from wal.writer import LogWriter

EXAMPLES = int(os.environ.get("RECORDER_TEST_EXAMPLES", "120"))
OPTIONS = LogOptions(segment_bytes_min=16_384, segment_bytes_max=32_768, pending_bytes_max=16_384, codec=None)
S = 1_000_000_000
Place = tuple[int, int]
TROUBLES = (
    "pwrite",
    "fsync",
    "fsync",
    "create",
    "rename",
    "sync_folder",
    "unlink",
    "truncate",
    "full",
    "",
    "",
)
SEEDS = st.integers(0, 2**20)
LOST = frozenset(Harm) - {Harm.REPEATED, Harm.CHECKPOINT, Harm.CHECKPOINT_AHEAD, Harm.SUSPECT}


def places(ranges: Iterable[Range]) -> list[Place]:
    return [(epoch, sequence) for epoch, first, stop in ranges for sequence in range(first, stop)]


class LogModel(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)
        self.place = tempfile.TemporaryDirectory()
        self.disk = ForgetfulDisk(Path(self.place.name) / "log")
        self.folder = self.disk.folder
        self.rows: dict[int, int] = {}
        """How many were appended, by epoch."""
        self.durable: set[Place] = set()
        """Told so by a writer: what a recovery reads may still be in the memory of the system alone."""
        self.settled: set[Place] = set()
        """At any time: these may be purged."""
        self.rotten: set[Place] = set()
        """In frames that rot has touched."""
        self.rotten_tokens: set[str] = set()
        self.told: list[Damage] = []
        self.seals: dict[str, Seal] = {}
        """All that were ever made."""
        self.durable_tokens: set[str] = set()
        self.voided: set[str] = set()
        """Of which a void was appended."""
        self.void_durable: set[str] = set()
        self.table: dict[Place, str] = {}
        """What the server has, and under which token it came."""
        self.server = 0
        self.now_s = 1_000
        self.token = 0
        self.may_be_read = [Checkpoint()]
        """The checkpoint that was written last, and those whose writing failed since."""
        self.checkpoint_rotten = False

    # -- a process, from its start to its end --------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        self.disk.failing.clear()
        self.files = self.disk.process()
        self.log = LogWriter.open(
            self.folder, NAME, SCHEMA, commit=OneThread(), options=OPTIONS, files=self.files
        )
        assert self.log.epoch not in self.rows, "an epoch is one opening"
        self.rows[self.log.epoch] = 0
        self.told += self.log.recovered.damage
        self.file = CheckpointFile(self.folder, files=self.files)
        found, damage = self.file.read()
        assert found in self.may_be_read or (self.checkpoint_rotten and damage)
        # The server may have restarted meanwhile: what another run of it confirmed is asked for again.
        self.checkpoint, _ = found.unconfirm(server=f"run {self.server}")
        self.marks: dict[str, int] = {}
        self.void_marks: dict[str, int] = {}
        _, replay = self.look(recovered=True)
        self.live = {seal.token: seal for seal in replay.seals}
        self.sealed = PlaceSet()

    @rule(
        how=st.sampled_from(["power cut", "power cut", "kill", "close"]), seed=SEEDS, times=st.integers(0, 30)
    )
    def end(self, how: str, seed: int, times: int) -> None:
        """After some work the process ends, and another one begins."""
        self.busy(seed, times)
        if how == "power cut":
            self.disk.power_cut(random.Random(seed).randrange)
        if how == "close":
            if self.log.close(0):
                self.durable |= set(places([Range(self.log.epoch, 0, self.rows[self.log.epoch])]))
            self.note_durable()
        self.disk.kill()
        self.open()

    # -- the disk ------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(TROUBLES), times=st.integers(1, 4))
    def trouble(self, what: str, times: int) -> None:
        """Calls that fail, a disk that is full, or all well again."""
        if what == "full":
            self.disk.room_bytes = times * 5_000
        elif what:
            self.disk.failing[what] = times
        else:
            self.heal()

    def heal(self) -> None:
        self.disk.room_bytes = None
        self.disk.failing.clear()

    @rule(seed=SEEDS, times=st.integers(0, 30))
    def rot(self, seed: int, times: int) -> None:
        """A byte of a segment or of the checkpoint; of a segment's preambles only of the first one."""
        self.busy(seed, times)
        chance = random.Random(seed)
        files = sorted(
            name for name in self.disk.names if name == names.CHECKPOINT or name.endswith(names.SUFFIX)
        )
        if not files:
            return
        name = chance.choice(files)
        data = (self.folder / name).read_bytes()
        if not data:
            return
        at = chance.randrange(len(data))
        if name == names.CHECKPOINT:
            self.checkpoint_rotten = True
        else:
            try:
                preamble, _ = read_preamble(data, name)
            except FormatError:
                return  # a power cut left it without: nothing was durable in it
            frames = [one for one in scan(data, len(data), preamble) if isinstance(one, Frame)]
            if frames and chance.random() < 0.8:
                at = chance.randrange(preamble.frames_from, frames[-1].end)
            if preamble.bytes_each <= at < preamble.frames_from:
                at -= preamble.bytes_each
            for frame in frames:
                if frame.offset <= at < frame.end:
                    self.note_rotten(preamble.epoch, frame, payload(data, frame))
        self.disk.rot(name, at)

    def note_rotten(self, epoch: int, frame: Frame, held: bytes | None) -> None:
        header = frame.header
        if header.kind == Kind.ROWS:
            self.rotten |= set(places([Range(epoch, header.first, header.first + header.rows)]))
        elif held is not None:
            tokens = (read_seal(held).token,) if header.kind == Kind.SEAL else read_void(held).tokens
            self.rotten_tokens |= set(tokens)

    # -- the owner -----------------------------------------------------------------------------------------------

    @rule(rows=st.integers(1, 40), more=st.integers(0, 3), sync=st.booleans())
    def record(self, rows: int, more: int, sync: bool) -> None:
        """Rows in a few slices, and a round of the commit."""
        for slice_rows in [rows] + [7] * more:
            self.append(slice_rows)
        if sync:
            self.turn()

    def append(self, rows: int) -> None:
        epoch, first = self.log.epoch, self.rows[self.log.epoch]
        try:
            appended = self.log.append(rows_of(epoch, first, rows))
        except LogFull:
            assert self.log.stats().pending_bytes > 0
            return
        assert appended.range == Range(epoch, first, first + rows), "numbered in the order of the calls"
        self.rows[epoch] += rows

    @rule()
    def turn(self) -> None:
        """A round of the commit, at once."""
        self.log.nudge()
        self.note_durable()

    def note_durable(self) -> None:
        self.durable |= set(places([Range(self.log.epoch, 0, self.log.synced_rows)]))
        mark = self.log.synced_mark
        self.durable_tokens |= {token for token, made in self.marks.items() if made <= mark}
        self.void_durable |= {token for token, made in self.void_marks.items() if made <= mark}

    def freeze(self, ranges: tuple[Range, ...]) -> Seal | None:
        self.token += 1
        seal = Seal(f"t{self.token}", ranges, sum(one.rows for one in ranges), 0, 0, {"shard": 1})
        try:
            self.marks[seal.token] = self.log.append_seal(pack_seal(seal))
        except LogFull:
            return None
        self.live[seal.token] = self.seals[seal.token] = seal
        self.sealed.update(ranges)
        return seal

    @rule(rows=st.integers(1, 60), sync=st.booleans())
    def seal(self, rows: int, sync: bool) -> None:
        """The next rows of this run that are not sealed, in two batches."""
        epoch = self.log.epoch
        for todo in self.sealed.missing_of(Range(epoch, 0, self.rows[epoch]))[:1]:
            middle, stop = (min(todo.stop, todo.first + most) for most in (rows, 2 * rows))
            self.freeze((todo._replace(stop=middle),))
            if middle < stop:
                self.freeze((todo._replace(first=middle, stop=stop),))
        if sync:
            self.turn()

    def ready(self) -> list[Seal]:
        """Seals that hold, are durable, and are not confirmed."""
        done = self.checkpoint.done()
        return [
            seal
            for token, seal in self.live.items()
            if self.marks.get(token, 0) <= self.log.synced_mark and not all(map(done.covers, seal.ranges))
        ]

    def send(self, seal: Seal, answered: bool = True) -> None:
        """What the table does not have already; then it is confirmed, if the answer arrives."""
        for place in places(seal.ranges):
            self.table.setdefault(place, seal.token)
        if answered:
            self.checkpoint = self.checkpoint.confirm(
                seal.ranges, at_ns=self.now_s * S, server=f"run {self.server}"
            )

    @rule(most=st.integers(1, 4), answered=st.booleans())
    def insert(self, most: int, answered: bool) -> None:
        for seal in self.ready()[:most]:
            self.send(seal, answered)

    @precondition(lambda self: self.ready())
    @rule()
    def bisect(self) -> None:
        """Take a seal back; once that is durable, seal its halves."""
        seal = self.ready()[0]
        span = seal.ranges[0]
        if any(place in self.table for place in places(seal.ranges)) or span.rows < 2 or len(seal.ranges) > 1:
            return
        with contextlib.suppress(LogFull):
            mark = self.void_marks[seal.token] = self.log.append_void(pack_void([seal.token]))
            self.voided.add(seal.token)
            del self.live[seal.token]
            self.turn()
            if self.log.synced_mark >= mark:
                middle = span.first + span.rows // 2
                self.freeze((span._replace(stop=middle),))
                self.freeze((span._replace(first=middle),))

    @rule(grace_s=st.integers(0, 3))
    def settle(self, grace_s: int) -> None:
        self.now_s += 1
        self.checkpoint = self.checkpoint.settle(
            before_ns=(self.now_s - grace_s) * S, server=f"run {self.server}"
        )
        self.settled |= set(places(self.checkpoint.settled))

    @rule(seed=SEEDS)
    def server_restarts(self, seed: int) -> None:
        """It may have lost what is not settled, batch by batch."""
        chance = random.Random(seed)
        gone = {token for token in sorted(set(self.table.values())) if chance.random() < 0.5}
        self.table = {
            place: token for place, token in self.table.items() if token not in gone or place in self.settled
        }
        self.server += 1
        self.checkpoint, again = self.checkpoint.unconfirm(server=f"run {self.server}")
        assert not set(places(again)) & set(places(self.checkpoint.settled))

    @rule(look=st.booleans())
    def write_checkpoint(self, look: bool) -> None:
        self.may_be_read.append(self.checkpoint)
        with contextlib.suppress(OSError):
            self.file.write(self.checkpoint)
            self.may_be_read = [self.checkpoint]
            self.checkpoint_rotten = False
        if look:
            self.look()

    @rule()
    def purge(self) -> None:
        purged = purge(self.log, [self.folder], self.checkpoint, seals=self.live.values(), files=self.files)
        self.checkpoint = purged.checkpoint

    @rule(most=st.integers(1, 30), batch_rows=st.integers(5, 60))
    def resend(self, most: int, batch_rows: int) -> None:
        """What a replay gives, up to what is durable of this run: sealed as it was, or sealed now."""
        done = self.checkpoint.done()
        done.add(Range(self.log.epoch, self.log.synced_rows, 2**63))
        replay = Replay(self.reader(), done, batch_rows=batch_rows, memory_bytes_max=10_000)
        for batch in replay.batches():
            seal = batch.seal
            if batch.broken_seal is not None:
                self.live.pop(batch.broken_seal.token, None)  # it will never be sent
            if seal is None or seal.token not in self.live:
                if seal is not None or (seal := self.freeze(batch.ranges)) is None:
                    return
                self.turn()
            if self.marks.get(seal.token, 0) > self.log.synced_mark:
                return
            self.send(seal)
            most -= 1
            if not most:
                return

    @rule(seed=SEEDS, times=st.integers(5, 40))
    def busy(self, seed: int, times: int) -> None:
        """Much of all that at once: examples of single steps alone seldom come far."""
        chance = random.Random(seed)
        for _ in range(times):
            what = chance.choices(
                ["record", "seal", "insert", "bisect", "settle", "checkpoint", "purge", "resend", "trouble"],
                [8, 6, 6, 2, 3, 2, 1, 1, 0.5],
            )[0]
            match what:
                case "record":
                    self.record(chance.randrange(1, 40), chance.randrange(3), chance.random() < 0.7)
                case "seal":
                    self.seal(chance.randrange(1, 60), chance.random() < 0.7)
                case "insert":
                    self.insert(chance.randrange(1, 5), chance.random() < 0.8)
                case "bisect" if self.ready():
                    self.bisect()
                case "settle":
                    self.settle(chance.randrange(4))
                case "checkpoint":
                    self.write_checkpoint(look=False)
                case "purge":
                    self.purge()
                case "resend":
                    self.resend(chance.randrange(1, 30), chance.randrange(5, 60))
                case "trouble":
                    self.trouble(chance.choice(TROUBLES), chance.randrange(1, 5))

    # -- the laws ------------------------------------------------------------------------------------------------

    def reader(self) -> LogReader:
        return LogReader([self.folder], name=NAME)

    def look(self, *, recovered: bool = False) -> tuple[set[Place], Replay]:
        """Everything that a replay gives now."""
        replay = Replay(self.reader(), self.checkpoint, batch_rows=25, memory_bytes_max=10_000)
        to_go = replay.rows_to_go
        given_out: list[Place] = []
        tokens: set[str] = set()
        for batch in replay.batches():
            self.check_batch(batch)
            given_out += places(batch.ranges)
            if batch.seal is not None:
                tokens.add(batch.seal.token)
        assert len(given_out) == len(set(given_out)) == to_go, "none comes twice"
        self.told += replay.damage
        done = set(places(self.checkpoint.done()))
        missing = self.durable - done - set(given_out)
        assert missing <= self.rotten | self.settled, "durable, and neither replayed nor done"
        lost = set(places(replay.lost)) & self.durable
        assert lost <= self.rotten | self.settled
        if (
            recovered and missing - self.settled
        ):  # before that, the end of a log may be one that is being written
            assert any(one.harm in LOST for one in self.told), "lost, and nobody was told"
        for token in self.durable_tokens - self.voided - self.rotten_tokens:
            rows = set(places(self.seals[token].ranges))
            if rows & (self.rotten | self.settled) or rows <= done or self.resealed(token):
                continue
            assert token in tokens, "sealed, and not given as it was sealed"
        return set(given_out), replay

    def resealed(self, token: str) -> bool:
        """Whether rows of it were sealed again since: only where a seal, or the void of its parent, was lost."""
        seal = self.seals[token]
        later = list(self.seals.values())[list(self.seals).index(token) + 1 :]
        return any(one.common(other) for made in later for one in made.ranges for other in seal.ranges)

    def check_batch(self, batch: ReplayBatch) -> None:
        epochs, numbers = (column.to_pylist() for column in batch.rows.columns)
        assert list(zip(epochs, numbers, strict=True)) == places(batch.ranges), "the rows that were appended"
        assert all(one.stop <= self.rows[one.epoch] for one in batch.ranges), "none is invented"
        if batch.seal is not None:
            assert batch.seal == self.seals[batch.seal.token], "as it was sealed"
            assert batch.ranges == batch.seal.ranges
            taken_back = self.void_durable - self.rotten_tokens
            assert batch.seal.token not in taken_back

    @invariant()
    def the_disk_is_bounded(self) -> None:
        """What waits in memory, and what failed attempts leave behind."""
        if getattr(self, "log", None) is not None:
            assert self.log.stats().pending_bytes <= 2 * OPTIONS.pending_bytes_max

    def teardown(self) -> None:
        """When all is well again everything durable arrives, and the log becomes empty."""
        try:
            if hasattr(self, "log"):
                self.finish()
        finally:
            self.disk.kill()
            self.place.cleanup()
            logging.disable(logging.NOTSET)

    def finish(self) -> None:
        self.heal()
        self.end("kill", 0, 0)
        for _ in range(50):
            self.turn()
            self.resend(1_000, 60)
            if not Replay(self.reader(), self.checkpoint).rows_to_go:
                break
        else:
            raise AssertionError("a replay that never ends")
        assert self.durable - set(self.table) <= self.rotten, "durable, and never arrived"
        replay = Replay(self.reader(), self.checkpoint)
        self.checkpoint = self.checkpoint.resolve(replay.lost).settle(
            before_ns=2**62, server=f"run {self.server}"
        )
        self.settled |= set(places(self.checkpoint.settled))
        purged = purge(self.log, [self.folder], self.checkpoint, seals=replay.seals, files=self.files)
        assert purged.error is None
        left = [state for state in self.log.segments() if state.preamble.epoch != self.log.epoch]
        open_ = [
            part
            for state in left
            for part in PlaceSet(self.checkpoint.settled).missing_of(
                Range(state.preamble.epoch, state.preamble.first, state.stop)
            )
        ]
        held = [x for x in replay.seals if not all(map(PlaceSet(self.checkpoint.settled).covers, x.ranges))]
        assert not left, f"settled, and never purged: {open_}, {held}, {replay.lost}, {replay.damage}"
        self.checkpoint = purged.checkpoint
        self.file.write(self.checkpoint)


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    # Shrinking takes longer than a test may: an example is told as it was found.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
