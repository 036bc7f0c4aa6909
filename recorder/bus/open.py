"""A subscription by the scheme of its URL.

Buses of other packages plug in by the entry point group `recorder.buses`: the name is a scheme, the value is called
with the URL and `BusOptions` and returns a `Subscription`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from recorder.bus.base import Subscription
from recorder.bus.endpoint import ZmqEndpoint, parse_zmq_url
from recorder.bus.errors import BusUnavailable, BusUrlError
from recorder.bus.options import BusOptions
from recorder.redact import redacted
from recorder.settings_fields import Address

GROUP = "recorder.buses"
OWN = {
    "inproc": "recorder.bus.inprocess:open_inprocess",
    "zmq": "recorder.bus.zeromq:open_zmq",
    "zmq+sub": "recorder.bus.topics:open_topics",
}
"""Schemes of this package, and what opens them."""


def open_subscription(url: str, options: BusOptions | None = None) -> Subscription:
    """The subscription a URL names, not started.

    Raises:
        BusUrlError: no bus has that scheme, or the URL is none of its bus.
        BusUnavailable: what the bus needs is not installed, or others would reach it and that is not allowed.
    """
    options = options or BusOptions()
    scheme, separator, _ = url.partition("://")
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not separator or scheme not in {*OWN, *found}:
        raise BusUrlError(
            f"bus {redacted(url)!r}: no such bus; a URL begins with one of "
            f"{', '.join(f'{known}://' for known in sorted({*OWN, *found}))}"
        )
    if scheme in OWN:
        module, _, function = OWN[scheme].partition(":")
        opener = getattr(importlib.import_module(module), function)
    else:
        opener = found[scheme].load()
    subscription: Subscription = opener(url, options)
    if scheme == "zmq":
        refuse_remote(parse_zmq_url(url), allow_remote=options.allow_remote)
    return subscription


def refuse_remote(endpoint: ZmqEndpoint, *, allow_remote: bool) -> None:
    """See that other machines do not reach an address that is listened at, unless that is allowed.

    Raises:
        BusUnavailable: they would.
    """
    if endpoint.path or allow_remote or Address(endpoint.host, endpoint.port).loopback:
        return
    raise BusUnavailable(
        f"bus {endpoint.url}: other machines would reach it and it has no authentication; "
        f"use zmq://127.0.0.1:{endpoint.port}, or allow it by setting bus_allow_remote = true"
    )
