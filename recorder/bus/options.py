"""What every bus is opened with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BusOptions:
    """Bounds of one subscription, and what it may open.

    At most `window_messages` of together `window_bytes` are delivered and unacknowledged at a time; what a bus has
    received beyond that waits in a buffer of the same size, and the rest with its publisher. A bus that promises
    at-most-once waits for no acknowledgement: there they bound what is delivered at a time. `allow_remote` lets a bus
    without authentication open an address that other machines reach.
    """

    window_messages: int = 8_192
    window_bytes: int = 64 * 1024 * 1024
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if self.window_messages < 1 or self.window_bytes < 1:
            raise ValueError(
                f"a window of {self.window_messages} messages and {self.window_bytes} bytes lets nothing through"
            )
