"""A page that is served while its run goes on, to this machine alone."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from diffstruct.errors import ConfigurationError
from diffstruct.report.page import as_json, html
from diffstruct.report.record import Record

EVERY = 2.0
"""Seconds between two looks at the run, at least."""
SHARE = 0.02
"""Of the time, what may be spent on looking."""
LOOKED_AT = 10.0
"""Seconds for which somebody who has asked passes for somebody who looks."""
WAIT = 5.0
"""Seconds that the server waits at the end for those who look to see the end."""


class LivePage:
    """Serves the page of a run on the loopback interface; a context manager, which stops serving.

    The run calls `show` from its own thread, which makes the data; the server's thread only hands out what is
    ready, so that nobody reads a run while it changes.

    Args:
        record: makes the record of the run as it is.
        port: to be served on; 0 for any that is free.

    Raises:
        ConfigurationError: the port cannot be had, or Plotly is not installed.
    """

    def __init__(self, record: Callable[[], Record], port: int = 0) -> None:
        self._record = record
        self._asked = -float("inf")  # when somebody has asked last
        self._next = 0.0
        self._seen = threading.Event()  # whether the data have been handed out
        self._show()
        html("", "{}", True)  # while an error is still an error of the one who calls
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"cannot serve on port {port}: {reason}; choose another with --port, or leave it out"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def port(self) -> int:
        """The port that it is served on."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self.port}/"

    def show(self) -> None:
        """Bring the page up to date, if it is time to, and somebody looks."""
        now = time.monotonic()
        if now < self._next or now - self._asked > LOOKED_AT:
            return
        self._show()
        self._next = now + max(EVERY, (time.monotonic() - now) / SHARE)

    def _show(self) -> None:
        record = self._record()
        data = as_json([record])
        etag = f'"{hashlib.sha256(data.encode()).hexdigest()[:32]}"'
        self._title, self._data = record.title, (data, etag)  # one assignment, which other threads see whole
        self._seen.clear()

    def __enter__(self) -> LivePage:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._show()
            if time.monotonic() - self._asked < LOOKED_AT:
                self._seen.wait(WAIT)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        live = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = "diffstruct"
            sys_version = ""
            timeout = 30

            def do_GET(self) -> None:
                # A name that somebody else's server has pointed at this machine is no name of ours.
                own = {f"{name}:{live.port}" for name in ("127.0.0.1", "localhost")}
                if self.headers.get("Host") not in own:
                    self._answer(403, "text/plain", "this page is for the machine that serves it\n")
                    return
                data, etag = live._data
                if self.path == "/":
                    live._asked = time.monotonic()
                    self._answer(200, "text/html", html(live._title, data, True))
                elif self.path == "/record.json":
                    live._asked = time.monotonic()
                    known = self.headers.get("If-None-Match") == etag
                    self._answer(304 if known else 200, "application/json", "" if known else data, etag)
                    if etag == live._data[1]:
                        live._seen.set()
                else:
                    self._answer(404, "text/plain", "there is nothing here but /\n")

            def _answer(self, status: int, kind: str, text: str, etag: str | None = None) -> None:
                content = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("X-Frame-Options", "DENY")
                self.send_header("Referrer-Policy", "no-referrer")
                if etag is not None:
                    self.send_header("ETag", etag)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed between the lines of the run."""

        return Handler
