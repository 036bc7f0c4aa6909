"""The checkpoint: what it says of places, read back whole or not at all, and never in the way of anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wal import names
from wal.checkpoint import Checkpoint, CheckpointFile, Confirmed, pack_checkpoint, read_checkpoint
from wal.damage import Harm
from wal.errors import FormatError, NewerFormat
from wal.files import OsFiles
from wal.format import crc32c
from wal.places import Range

S = 1_000_000_000
EPOCHS = st.sampled_from([1, 2**64 - 1])
SERVERS = st.sampled_from(["a@1", "a@2", 'odd "text" with \n and é'])
RANGES = st.lists(
    st.builds(
        lambda epoch, first, rows: Range(epoch, first, first + rows),
        EPOCHS,
        st.integers(0, 40),
        st.integers(0, 12),
    ),
    max_size=3,
)
Place = tuple[int, int]


def places(ranges: list[Range] | tuple[Range, ...]) -> list[Place]:
    return [(epoch, sequence) for epoch, first, stop in ranges for sequence in range(first, stop)]


class CheckpointModel(RuleBasedStateMachine):
    """A checkpoint is two things by place: what is settled, and who confirmed the others when."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint = Checkpoint()
        self.settled: set[Place] = set()
        self.confirmed: dict[Place, tuple[int, str]] = {}
        self.notes: dict[str, object] = {}

    @rule(ranges=RANGES, at_s=st.integers(0, 6), server=SERVERS)
    def confirm(self, ranges: list[Range], at_s: int, server: str) -> None:
        self.checkpoint = self.checkpoint.confirm(ranges, at_ns=at_s * S - (at_s > 0), server=server)
        self.confirmed |= {place: (at_s, server) for place in places(ranges) if place not in self.settled}

    @rule(before_s=st.integers(0, 6), server=SERVERS)
    def settle(self, before_s: int, server: str) -> None:
        self.checkpoint = self.checkpoint.settle(before_ns=before_s * S, server=server)
        ripe = {place for place, (at_s, by) in self.confirmed.items() if by == server and at_s <= before_s}
        self.settled |= ripe
        self.confirmed = {place: said for place, said in self.confirmed.items() if place not in ripe}

    @rule(ranges=RANGES)
    def resolve(self, ranges: list[Range]) -> None:
        self.checkpoint = self.checkpoint.resolve(ranges)
        self.settled |= set(places(ranges))
        self.confirmed = {place: said for place, said in self.confirmed.items() if place not in self.settled}

    @rule(server=SERVERS)
    def unconfirm(self, server: str) -> None:
        """The server that is there now: what others confirmed is open again, and it is told which rows these are."""
        self.checkpoint, again = self.checkpoint.unconfirm(server=server)
        others = {place for place, (_, by) in self.confirmed.items() if by != server}
        assert set(places(again)) == others
        self.confirmed = {place: said for place, said in self.confirmed.items() if place not in others}

    @rule(ranges=RANGES)
    def reopen(self, ranges: list[Range]) -> None:
        self.checkpoint = self.checkpoint.reopen(ranges)
        opened = set(places(ranges))
        self.settled -= opened
        self.confirmed = {place: said for place, said in self.confirmed.items() if place not in opened}

    @rule(epoch=EPOCHS)
    def forget(self, epoch: int) -> None:
        """Of an epoch that is gone nothing is kept; of the others, and of notes, everything."""
        self.checkpoint = self.checkpoint.forget([epoch])
        self.settled = {place for place in self.settled if place[0] != epoch}
        self.confirmed = {place: said for place, said in self.confirmed.items() if place[0] != epoch}

    @rule(
        key=st.text(max_size=3), value=st.none() | st.integers() | st.lists(st.text(max_size=3), max_size=2)
    )
    def note(self, key: str, value: object) -> None:
        self.checkpoint = self.checkpoint.note({key: value})  # type: ignore[dict-item]
        self.notes[key] = value

    @rule(key=st.text(max_size=1))
    def drop_note(self, key: str) -> None:
        self.checkpoint = self.checkpoint.drop_notes([key])
        self.notes.pop(key, None)

    @invariant()
    def same(self) -> None:
        held = self.checkpoint
        assert set(places(held.settled)) == self.settled
        said = [(place, (one.at_s, one.server)) for one in held.confirmed for place in places([one.range])]
        assert dict(said) == self.confirmed
        assert len(said) == len(self.confirmed), "confirmed once"
        assert [place for place, _ in said] == sorted(self.confirmed)
        assert held.notes == self.notes
        assert set(places(list(held.done()))) == self.settled | set(self.confirmed)
        assert held.epochs == {epoch for epoch, _ in self.settled | set(self.confirmed)}

    @invariant()
    def is_read_back(self) -> None:
        """Every value that can come about, whatever server and notes say."""
        packed = pack_checkpoint(self.checkpoint)
        assert read_checkpoint(packed) == self.checkpoint
        assert packed.isascii()


TestCheckpointModel = CheckpointModel.TestCase
TestCheckpointModel.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

SAMPLE = (
    Checkpoint()
    .resolve([Range(0xAB, 0, 1_000)])
    .confirm([Range(0xAB, 1_000, 1_250)], at_ns=1_700_000_000 * S, server="uuid@7")
    .note({"bus/orders/3": [17, "x"]})
)
SAMPLE_TEXT = b"""wal checkpoint 1
settled 00000000000000ab 0 1000
confirmed 00000000000000ab 1000 1250 1700000000 "uuid@7"
note "bus/orders/3" [17,"x"]
crc32c """


def sealed(body: bytes) -> bytes:
    """With the checksum that belongs to it."""
    return body + f"crc32c {crc32c(body):08x}\n".encode()


def test_the_file_is_as_it_is_written_down() -> None:
    """A person can read it, and write one."""
    packed = pack_checkpoint(SAMPLE)
    assert packed.startswith(SAMPLE_TEXT)
    assert packed == sealed(SAMPLE_TEXT.removesuffix(b"crc32c "))
    assert read_checkpoint(sealed(b"wal checkpoint 1\n")) == Checkpoint()


def test_a_time_is_rounded_up() -> None:
    """What is confirmed within a second is settled no sooner than a grace period after it."""
    confirmed = Checkpoint().confirm([Range(1, 0, 9)], at_ns=5 * S + 1, server="a")
    assert confirmed.settle(before_ns=6 * S - 1, server="a").settled == ()
    assert confirmed.settle(before_ns=6 * S, server="a").settled == (Range(1, 0, 9),)


def test_confirming_in_order_takes_a_line_a_second() -> None:
    """At 40 inserts a second and a grace period of ten minutes: 600 entries, each change far below a millisecond."""
    checkpoint = Checkpoint()
    started_s = time.perf_counter()
    for insert in range(24_000):
        at_ns = insert * S // 40
        checkpoint = checkpoint.confirm([Range(1, insert * 100, insert * 100 + 100)], at_ns=at_ns, server="a")
    spent_s = time.perf_counter() - started_s
    assert len(checkpoint.confirmed) == 601
    assert spent_s / 24_000 < 1e-3
    assert checkpoint.settle(before_ns=700 * S, server="a").settled == (Range(1, 0, 2_400_000),)


def test_no_cut_or_flipped_checkpoint_is_read() -> None:
    """Whatever its bytes became, it is refused whole: nothing is half believed."""
    packed = pack_checkpoint(SAMPLE)
    for size in range(len(packed)):
        with pytest.raises(FormatError):
            read_checkpoint(packed[:size])
    for bit in range(8 * len(packed)):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_checkpoint(bytes(broken))


@given(st.binary(max_size=200))
def test_noise_is_no_checkpoint(noise: bytes) -> None:
    """Not even with the right title or the right checksum."""
    for data in (noise, b"wal checkpoint 1\n" + noise, sealed(b"wal checkpoint 1\n" + noise + b"?\n")):
        with pytest.raises(FormatError):
            read_checkpoint(data)


@pytest.mark.parametrize(
    "line",
    [
        b"settled 00000000000000ab 5 5\n",
        b"settled 00000000000000AB 5 6\n",
        b"settled ab 5 6\n",
        b"settled 00000000000000ab 5 6\nsettled 00000000000000ab 5 7\n",
        b"settled 00000000000000ab 5 6\n" + b'confirmed 00000000000000ab 4 9 3 "s"\n',
        b"confirmed 00000000000000ab 5 6 3 s\n",
        b'note "a" \n',
        b"note a 3\n",
        b'note "a" ' + b"[" * 100_000 + b"\n",
        b"\n",
        b"crc32c 00000000\n",
    ],
    ids=list("abcdefghijk"),
)
def test_a_line_that_is_none_of_ours_is_refused(line: bytes) -> None:
    """Also where the checksum is right: somebody wrote it who did not know better."""
    with pytest.raises(FormatError, match="its checksum is right"):
        read_checkpoint(sealed(b"wal checkpoint 1\n" + line))


# -- the file -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    """What is read is what was written last, and nothing else stays behind."""
    file = CheckpointFile(tmp_path)
    assert file.read() == (Checkpoint(), None)
    for checkpoint in (SAMPLE, SAMPLE.resolve([Range(0xAB, 0, 5_000)]), Checkpoint()):
        file.write(checkpoint)
        assert CheckpointFile(tmp_path).read() == (checkpoint, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (pack_checkpoint(SAMPLE)[:-1], "checkpoint.broken"),
        (b"", "checkpoint.broken"),
        (b"\x7fELF of somebody else", "checkpoint.broken"),
        (sealed(b"wal checkpoint 2\nsettled in another way\n"), "checkpoint.newer"),
        (b"wal checkpoint 12\nanything", "checkpoint.newer"),
    ],
    ids=["cut", "empty", "foreign", "newer", "much-newer"],
)
@pytest.mark.parametrize("read_first", [True, False])
def test_what_cannot_be_read_is_told_and_kept(
    there: bytes, kept: str, read_first: bool, tmp_path: Path
) -> None:
    """It counts as empty; it is no reason not to start; and when another takes its place it stays for a person."""
    path = tmp_path / "checkpoint"
    path.write_bytes(there)
    file = CheckpointFile(tmp_path)
    if read_first:
        checkpoint, damage = file.read()
        assert checkpoint == Checkpoint()
        assert damage is not None
        assert damage.harm is Harm.CHECKPOINT
        assert "\n" not in str(damage)
        assert path.read_bytes() == there, "reading changes nothing"
    file.write(SAMPLE)
    file.write(SAMPLE)
    assert CheckpointFile(tmp_path).read() == (SAMPLE, None)
    assert (tmp_path / kept).read_bytes() == there
    assert not names.strangers([tmp_path])


def test_a_file_that_nobody_may_read_counts_as_empty(tmp_path: Path) -> None:
    """A folder in its place stands for all that the system refuses; it is moved aside too."""
    (tmp_path / "checkpoint").mkdir()
    file = CheckpointFile(tmp_path)
    checkpoint, damage = file.read()
    assert checkpoint == Checkpoint()
    assert damage is not None
    file.write(SAMPLE)
    assert file.read() == (SAMPLE, None)


class FailingFiles(OsFiles):
    """The real file system, whose N-th call does nothing and fails; after it all do, or none."""

    def __init__(self, at: int, *, for_ever: bool):
        self.calls: list[str] = []
        self._at = at
        self._for_ever = for_ever

    def __getattribute__(self, name: str) -> object:
        if name in ("create", "pwrite", "fsync", "rename", "unlink", "sync_folder"):
            self.calls.append(name)
            if len(self.calls) == self._at or (self._for_ever and len(self.calls) > self._at):
                raise OSError(28, "no space left", name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("there", [pack_checkpoint(SAMPLE), b"torn", None], ids=["sound", "torn", "none"])
def test_every_call_may_fail(there: bytes | None, for_ever: bool, tmp_path: Path) -> None:
    """The one that was there stands, or the new one, whole; and once the disk is well the next one is written."""
    new = SAMPLE.resolve([Range(3, 0, 9)])
    allowed = [SAMPLE, new] if there == pack_checkpoint(SAMPLE) else [Checkpoint(), new]
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        if there is not None:
            (folder / "checkpoint").write_bytes(there)
        (folder / "checkpoint.new").write_bytes(b"of one that was killed")
        files = FailingFiles(at, for_ever=for_ever)
        try:
            CheckpointFile(folder, files=files).write(new)
        except OSError:
            assert CheckpointFile(folder).read()[0] in allowed
        else:
            assert len(files.calls) < at, "a failure is never hidden"
            assert CheckpointFile(folder).read() == (new, None)
            break
        again = CheckpointFile(folder)
        again.write(new)
        assert again.read() == (new, None)
        assert not (folder / "checkpoint.new").exists()
    else:
        pytest.fail("it never came through")
    assert files.calls == [
        "unlink",
        "create",
        "pwrite",
        "fsync",
        *["rename"] * (1 + (there == b"torn")),
        "sync_folder",
    ]


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    """Also where a write fails."""
    before = len(os.listdir("/proc/self/fd"))
    for at in range(1, 8):
        file = CheckpointFile(tmp_path, files=FailingFiles(at, for_ever=True))
        while True:
            try:
                file.write(SAMPLE)
            except OSError:
                break
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_entry_is_a_value() -> None:
    """Two that say the same are the same."""
    said = Checkpoint().confirm([Range(1, 0, 2)], at_ns=S, server="a")
    assert said.confirmed == (Confirmed(Range(1, 0, 2), 1, "a"),)
    assert said == Checkpoint().confirm([Range(1, 1, 2), Range(1, 0, 1)], at_ns=1, server="a")


def test_a_newer_one_says_what_to_do() -> None:
    """Which version it is, and which this program reads."""
    with pytest.raises(NewerFormat, match="version 2, this program reads 1"):
        read_checkpoint(b"wal checkpoint 2\n")
