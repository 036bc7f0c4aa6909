"""Publisher, its sender and recorder as the protocol has them: the wire loses and cuts, and each may be killed."""

from __future__ import annotations

import itertools
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from recorder.bus import feed, outbox, wire
from recorder.bus.base import BusMessage
from recorder.bus.feed import Feed
from recorder.bus.ranges import Ranges
from recorder.bus.ring import RingReader, RingWriter, Word
from recorder.bus.stream import PublisherStream

EPOCH = 7
WINDOW = 24
BUFFER = 40 * 150


class Recorder:
    """A recorder's run: what `ZmqSubscription` does with one stream, without sockets and time."""

    def __init__(self, run: int):
        self.run = run
        self.stream: PublisherStream | None = None
        self.delivered: list[BusMessage] = []
        self.told_shed = 0

    def take(self, frame: bytes) -> bytes | None:
        epoch, content = wire.unpack_from_publisher(frame)
        stream = self.stream
        if isinstance(content, wire.Hello):
            if stream is None:
                stream = self.stream = PublisherStream(epoch, content)
            else:
                stream.greet(content)
            self.told_shed += stream.shed_since(content.shed)
            return self.ack(welcome=True)
        if stream is None:
            return wire.pack_unknown(epoch, self.run)
        if isinstance(content, wire.Ping):
            self.told_shed += stream.shed_since(content.shed)
            return self.ack(resend=content.sent_to > stream.expected)
        assert isinstance(content, wire.Data)
        self.told_shed += stream.shed_since(content.shed)
        if stream.hole(content):
            return self.ack(resend=True)
        if stream.repeated(content):
            return None
        self.delivered += stream.take(content, wire.unpack_records(content))
        return None

    def ack(self, *, welcome: bool = False, resend: bool = False) -> bytes:
        assert self.stream is not None
        return self.stream.ack(self.run, WINDOW, 20 * 150, welcome=welcome, resend=resend)


class WatchedReader(RingReader):
    """A sender may be killed after any word that it stores."""

    def __init__(self, model: BusModel):
        super().__init__(model.ring.fd, BUFFER)
        self.model = model

    def say(self, word: Word, value: int) -> None:
        super().say(word, value)
        if word in (Word.FIRST, Word.TAIL, Word.APART):
            self.model.check_what_a_successor_finds()


class BusModel(RuleBasedStateMachine):
    """Whatever is lost, cut or restarted: order, once a run, flags, bounds, and in the end everything."""

    def __init__(self) -> None:
        super().__init__()
        self.small = [
            mock.patch.object(outbox, "FRAME_RECORDS", 3),
            mock.patch.object(feed, "AHEAD_RECORDS", 6),
        ]
        for patch in self.small:
            patch.start()
        self.ring = RingWriter(BUFFER)
        self.feed = self.sender()
        self.lost: set[int] = set()
        """What a killed sender alone had, and no other one knows of."""
        self.recorder = Recorder(1)
        self.to_recorder: list[bytes] = []
        self.to_publisher: list[bytes] = []
        self.taken: dict[int, bytes] = {}
        self.offered = 0
        self.safe: set[int] = set()
        self.handed_before: set[int] = set()

    def sender(self) -> Feed:
        self.sent_before = self.ring.word(Word.SENT_TO)
        return Feed(WatchedReader(self), EPOCH, "p")

    def check_what_a_successor_finds(self) -> None:
        """Killed just now, a sender loses at most what it says that it has apart."""
        first = RingReader(self.ring.fd, BUFFER).first
        lost = set(range(first)) - self.resolved()
        assert len(lost) <= self.ring.word(Word.APART)

    @property
    def outbox(self) -> outbox.Outbox:
        return self.feed.outbox

    # -- the world ---------------------------------------------------------------------------------------------

    @rule(size=st.integers(0, 60), times=st.integers(1, 20))
    def publish(self, size: int, times: int) -> None:
        for _ in range(times):
            self.offered += 1
            payload = self.offered.to_bytes(4, "big") + bytes(size)
            if self.ring.put(wire.record(1, "t", 0, None, payload)):
                self.taken[len(self.taken)] = payload

    @rule(most=st.integers(1, 5))
    def send(self, most: int) -> None:
        self.feed.fill()
        for _ in range(most):
            frame = self.outbox.next_frame()
            self.feed.about_to_send()
            if frame is not None:
                self.to_recorder.append(frame)

    @rule()
    def tell(self) -> None:
        """What is safe, or copied, is let go of."""
        self.feed.tell()

    @rule(sent=st.booleans())
    def kill_the_sender(self, sent: bool) -> None:
        """Another one goes on. The frame that it was about to send may never have left."""
        self.feed.fill()
        frame = self.outbox.next_frame()
        self.feed.about_to_send()
        if frame is not None and sent:
            self.to_recorder.append(frame)
        first = self.ring.word(Word.FIRST)
        lost = {n for n in range(first) if n not in self.resolved()}
        assert len(lost) <= self.ring.word(Word.APART)
        self.lost |= lost
        self.feed = self.sender()

    @rule()
    def hello_or_ping(self) -> None:
        self.to_recorder.append(self.outbox.ping() if self.outbox.welcome else self.outbox.hello())

    @rule(most=st.integers(1, 6))
    def deliver(self, most: int) -> None:
        for frame in self.to_recorder[:most]:
            before = len(self.recorder.delivered)
            if (answer := self.recorder.take(frame)) is not None:
                self.to_publisher.append(answer)
            self.check_delivery(self.recorder.delivered[before:], self.recorder.delivered[:before])
        del self.to_recorder[:most]

    @rule(most=st.integers(1, 6))
    def answer(self, most: int) -> None:
        for frame in self.to_publisher[:most]:
            _, content = wire.unpack_from_recorder(frame)
            self.outbox.take(content)
        del self.to_publisher[:most]

    @rule(
        fates=st.lists(st.sampled_from("......xd"), max_size=12),
        back=st.booleans(),
        count=st.integers(0, 9),
        beat=st.booleans(),
    )
    def flow(self, fates: list[str], back: bool, count: int, beat: bool) -> None:
        """A turn of everything: publish, send, some frames lost (x) or doubled (d), and answers that may be lost."""
        self.publish(10, count)
        if beat or not self.outbox.welcome:
            self.hello_or_ping()
        self.send(4)
        fated = [(frame, fates.pop() if fates else ".") for frame in self.to_recorder]
        self.to_recorder = [frame for frame, fate in fated for _ in range(".d".find(fate) + 1)]
        self.deliver(100)
        if back:
            self.answer(100)
        else:
            self.to_publisher.clear()

    @precondition(lambda self: self.recorder.delivered)
    @rule(share=st.integers(1, 4))
    def acknowledge_some(self, share: int) -> None:
        """Every so many of what is delivered becomes safe, and its publisher hears of it."""
        assert self.recorder.stream is not None
        done = [message.position for message in self.recorder.delivered][::share]
        self.safe |= set(done)
        self.recorder.stream.resolve(done)
        self.to_publisher.append(self.recorder.ack())
        self.answer(100)

    @rule(every=st.integers(2, 6))
    def hold_some(self, every: int) -> None:
        """All but every so many of what is delivered becomes safe, while the ring is full: the sender copies these."""
        self.flow([], back=True, count=20, beat=True)
        if self.recorder.stream is None:
            return
        self.publish(30, 60)
        done = {message.position for message in self.recorder.delivered if message.position % every}
        self.safe |= done
        self.recorder.stream.resolve(done)
        self.to_publisher.append(self.recorder.ack())
        self.answer(100)
        self.feed.tell()

    @precondition(lambda self: self.recorder.delivered)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Some of what is delivered becomes safe, in any order; nonsense beside it."""
        positions = [message.position for message in self.recorder.delivered]
        done = data.draw(st.lists(st.sampled_from(positions), max_size=12))
        self.safe |= set(done)
        assert self.recorder.stream is not None
        self.recorder.stream.resolve([*done, 10**9])
        self.to_publisher.append(self.recorder.ack())

    @rule()
    def cut(self) -> None:
        """The connection breaks: what was on its way is lost."""
        self.to_recorder.clear()
        self.to_publisher.clear()

    @rule(at=st.integers(0, 5))
    def lose_one(self, at: int) -> None:
        if at < len(self.to_recorder):
            del self.to_recorder[at]

    @rule(at=st.integers(0, 5))
    def double_one(self, at: int) -> None:
        if at < len(self.to_recorder):
            self.to_recorder.insert(at, self.to_recorder[at])

    @rule()
    def restart(self) -> None:
        """Another run of the recorder, which knows nothing; frames on their way may reach it."""
        self.handed_before |= {message.position for message in self.recorder.delivered}
        self.recorder = Recorder(self.recorder.run + 1)

    @rule()
    def silence(self) -> None:
        self.outbox.forget()

    # -- the laws ----------------------------------------------------------------------------------------------

    def check_delivery(self, fresh: list[BusMessage], before: list[BusMessage]) -> None:
        last = before[-1].position if before else -1
        for message in fresh:
            assert message.position > last, "in order, each once a run"
            assert message.payload == self.taken[message.position], "the publisher's bytes"
            between = set(range(last + 1, message.position))
            assert between <= self.safe | self.lost, "only what is safe is left out"
            # What is lost but for a frame that is still on its way may come.
            assert message.position not in self.resolved() - self.lost, (
                "what the publisher knows to be safe never comes again"
            )
            if message.position in self.handed_before:
                assert message.redelivered, "what another run was given is marked"
            last = message.position

    def resolved(self) -> set[int]:
        return {n for start, end in self.outbox.resolved for n in range(start, end)}

    @invariant()
    def only_what_is_safe_is_resolved(self) -> None:
        assert self.resolved() <= self.safe | self.lost

    @invariant()
    def counts_agree(self) -> None:
        assert self.offered == self.ring.accepted + self.ring.shed
        assert self.ring.accepted == len(self.taken)
        assert self.outbox.accepted == self.outbox.resolved.total + self.outbox.unresolved <= len(self.taken)
        assert 0 <= self.ring.used_bytes <= BUFFER

    @invariant()
    def the_window_holds(self) -> None:
        """Of what a predecessor had sent, a sender hears later what is safe."""
        assert self.outbox.out_messages <= WINDOW or self.outbox.sent_to == self.sent_before

    def teardown(self) -> None:
        """When the world behaves again, everything that was taken becomes safe, and every shed message is told."""
        try:
            self.heal()
        finally:
            for patch in self.small:
                patch.stop()
            self.ring.close()

    def heal(self) -> None:
        self.restart()
        for _ in range(10 + 2 * len(self.taken)):
            self.hello_or_ping()
            self.send(50)
            self.deliver(1_000)
            self.safe |= {message.position for message in self.recorder.delivered}
            if self.recorder.stream is not None:
                self.recorder.stream.resolve(message.position for message in self.recorder.delivered)
                self.to_publisher.append(self.recorder.ack())
            self.answer(1_000)
            self.feed.tell()
            if self.feed.done and self.outbox.shed_seen == self.ring.shed:
                break
        assert self.feed.done
        assert self.safe | self.lost >= set(self.taken)
        assert (self.ring.word(Word.RESOLVED), self.ring.used_bytes) == (self.ring.accepted, 0)
        assert self.outbox.shed_seen == self.ring.shed == self.ring.word(Word.SHED_SEEN)


TestBusModel = BusModel.TestCase
TestBusModel.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


class RangesModel(RuleBasedStateMachine):
    """Ranges are a set of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = Ranges()
        self.model: set[int] = set()

    @rule(start=st.integers(0, 60), length=st.integers(-2, 20))
    def add(self, start: int, length: int) -> None:
        added = set(range(start, start + length))
        fresh = [n for a, b in self.ranges.add(start, start + length) for n in range(a, b)]
        assert fresh == sorted(added - self.model)
        self.model |= added

    @invariant()
    def same(self) -> None:
        assert {n for a, b in self.ranges for n in range(a, b)} == self.model
        assert self.ranges.total == len(self.model)
        pairs = list(self.ranges)
        assert all(a < b for a, b in pairs)
        assert all(left[1] < right[0] for left, right in itertools.pairwise(pairs))

    @rule(start=st.integers(0, 70), end=st.integers(0, 70))
    def ask(self, start: int, end: int) -> None:
        span = set(range(start, end))
        assert (start in self.ranges) == (start in self.model)
        missing = [n for a, b in self.ranges.missing(start, end) for n in range(a, b)]
        assert missing == sorted(span - self.model)
        assert self.ranges.covers(start, end) == (span <= self.model)
        at = self.ranges.end_of_run(start)
        assert at not in self.model
        assert set(range(start, at)) <= self.model
        above = self.ranges.above(start, 3)
        assert above == [pair for pair in self.ranges if pair[0] > start][:3]


TestRangesModel = RangesModel.TestCase
TestRangesModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
