"""The alarm behind `Publisher`: it goes off once, so long after it was last set."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from recorder.bus import alarm as alarms
from recorder.bus.alarm import Alarm, KernelAlarm, LookingAlarm, make_alarm

FAR_NS = 3_600 * 10**9


@pytest.fixture(params=[KernelAlarm, LookingAlarm], ids=["kernel", "looking"])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    make: Callable[[], Alarm] = request.param
    made = make()
    yield made
    made.close()


def waiting(alarm: Alarm) -> tuple[threading.Thread, list[int]]:
    """A thread that waits for it, and when it went off."""
    went_off: list[int] = []

    def wait() -> None:
        alarm.wait()
        went_off.append(time.monotonic_ns())

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, went_off


def test_it_goes_off_so_long_after_it_was_last_set(alarm: Alarm) -> None:
    """However often it was put off, and never before."""
    after_ns = 30_000_000
    thread, went_off = waiting(alarm)
    sets = []
    for _ in range(20):
        sets.append(time.monotonic_ns())
        alarm.set(after_ns)
        time.sleep(0.003)
    alarm.set(after_ns)  # for a thread that still waits
    thread.join(10)
    stood_still = max(late - early for early, late in itertools.pairwise(sets)) >= after_ns / 2
    assert stood_still or went_off[0] >= sets[-1] + after_ns


def test_it_can_be_set_to_go_off_earlier(alarm: Alarm) -> None:
    """A thread that waits for longer wakes then."""
    alarm.set(FAR_NS)
    thread, went_off = waiting(alarm)
    alarm.set(1)
    thread.join(10)
    assert went_off


def test_it_remembers_that_it_went_off(alarm: Alarm) -> None:
    """Who comes to wait later need not; but once a time it was set, no more."""
    alarm.set(1)
    time.sleep(0.01)
    alarm.wait()
    thread, went_off = waiting(alarm)
    thread.join(0.1)
    assert not went_off
    alarm.set(1)
    thread.join(10)
    assert went_off


def test_setting_it_after_its_end_does_nothing(alarm: Alarm) -> None:
    """Whoever is late with it; its descriptor may be another alarm's by then."""
    alarm.close()
    another = type(alarm)()
    thread, went_off = waiting(another)
    alarm.set(1)
    thread.join(0.1)
    assert not went_off
    another.set(1)
    thread.join(10)
    another.close()
    alarm.close()


@pytest.mark.parametrize("missing", ["platform", "descriptors"])
def test_without_the_kernels_timer_a_thread_looks(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems, and where no descriptor is to be had."""

    def refuse() -> Alarm:
        raise OSError(24, "Too many open files")

    if missing == "platform":
        monkeypatch.setattr(alarms.sys, "platform", "darwin")
    else:
        monkeypatch.setattr(alarms, "KernelAlarm", refuse)
    assert isinstance(make_alarm(), LookingAlarm)
