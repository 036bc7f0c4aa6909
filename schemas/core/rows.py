"""What every row of the core tables starts with."""

from __future__ import annotations

from schemas.columns import Id, Name, TimeNs
from schemas.table import Row


class Event(Row, kw_only=True):
    """The columns that every row has."""

    ts_local: TimeNs = 0
    """When the producer received or made the event, ns; the recorder's clock at acceptance where it is left out."""
    run_id: Name = ""
    """The producer's run; from the recorder's settings where it is left out."""
    correlation_id: Id | None = None
    """What ties rows of one chain of events together; from the call, the context, the message or the payload."""
