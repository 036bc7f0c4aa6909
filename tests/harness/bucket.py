"""A bucket: moto's server in a thread, which fails requests when told to.

with Bucket() as bucket:
    bucket.fail_every(3)             # each third request gets 503 and is not done
    bucket.fail_every(4, done=True)  # each fourth is done, and its answer is 500
"""

from __future__ import annotations

import collections
import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, Self

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

NAME = "trading"
BUSY = b"<Error><Code>SlowDown</Code><Message>made to fail</Message></Error>"
Start = Callable[..., Any]


class Quiet(WSGIRequestHandler):
    """Tells nothing of requests."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


class Bucket:
    """See the module."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="bucket", daemon=True
        )
        self._every, self._done = 0, False
        self._lock = threading.Lock()
        self.requests = 0
        self.failed = 0
        self.methods: collections.Counter[str] = collections.Counter()

    @property
    def port(self) -> int:
        """On loopback."""
        return self._server.server_port

    def variables(self, port: int | None = None) -> dict[str, str]:
        """The environment that leads to it, or to a proxy before it."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
        }

    def fail_every(self, every: int, *, done: bool = False) -> None:
        """Fail each so many-th request from now on; 0 for none. `done`: after it was done."""
        with self._lock:
            self._every, self._done = every, done

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            self.methods[environ["REQUEST_METHOD"]] += 1
            fails = self._every > 0 and self.requests % self._every == 0
            self.failed += fails
        if not fails:
            return self._app(environ, start)  # type: ignore[no-any-return]
        if self._done:
            collections.deque(self._app(environ, lambda *_: None), maxlen=0)
        else:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(size)
        status = "500 Internal Server Error" if self._done else "503 Slow Down"
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
        return [BUSY]

    def __enter__(self) -> Self:
        self._thread.start()
        address = f"http://127.0.0.1:{self.port}"
        # What an earlier bucket of this process held is moto's, and global.
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
        urllib.request.urlopen(urllib.request.Request(f"{address}/{NAME}", method="PUT")).close()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
