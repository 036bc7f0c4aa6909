"""Says when the service is ready: rows reach the database, and every bus is subscribed to, as `/readyz` says."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.log import get_logger
from recorder.service.notify import notify

log = get_logger("recorder.service")


class Readiness:
    """Tells the log and the supervisor, when it changes. Why it is not ready the log has from who found out."""

    def __init__(self) -> None:
        self.ever = False
        """Whether it was ready once."""
        self.reasons: Sequence[str] | None = None
        """Why it is not ready, as far as it was seen; None before."""

    def saw(self, reasons: Sequence[str]) -> None:
        """These are the reasons now why it is not ready; none where it is."""
        first = self.reasons is None
        if reasons == self.reasons:
            return
        self.reasons = list(reasons)
        if not reasons and not self.ever:
            self.ever = True
            log.info("ready")
        elif first:
            log.warning("started, not ready yet")
        notify(STATUS=f"not ready: {'; '.join(reasons)}" if reasons else "recording")
