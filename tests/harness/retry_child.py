"""A retry of dead letters in a process that kills itself at a step: `python -m harness.retry_child STEP N`.

Steps are each "look-up" and each "insert" of its sink; see `dying`. The settings are those of the environment.
"""

from __future__ import annotations

import sys

from recorder import Settings
from recorder.sink.client_sink import ClientSink
from recorder.sink.open import open_sink

from .dead_lettered import Desk
from .dying import Death

if __name__ == "__main__":
    death = Death(*sys.argv[1:3])
    death.replace(ClientSink, "look_up", "look-up")
    death.replace(ClientSink, "insert", "insert")
    settings = Settings()
    print(Desk(settings).retry(sink=open_sink(settings)).outcomes)
