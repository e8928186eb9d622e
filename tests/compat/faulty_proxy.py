"""`FaultyProxy`: stands before a registry and does to its answers, and to requests, what a bad network does.

    proxy.plan = lambda request: Fault(cut=1000) if request.is_blob and request.seen == 1 else None

Requests are kept in `proxy.requests`, as they came.
"""

from __future__ import annotations

import http.client
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """`seen`: how often this method and path were asked for, this time included."""

    method: str
    path: str
    headers: Mapping[str, str]
    seen: int

    @property
    def is_blob(self) -> bool:
        return self.method == "GET" and re.search(r"/blobs/sha256:", self.path) is not None

    @property
    def digest(self) -> str:
        found = re.search(r"sha256:[0-9a-f]{64}", self.path)
        return found[0] if found else ""


@dataclass(frozen=True)
class Fault:
    """What happens to one exchange.

    `lost`: the connection ends before the registry hears of it. `answer_lost`: after. `cut`: after so many bytes of the
    body. `corrupt`: one bit of the byte there is changed. `swap`: (first, second, length), pieces change their places.
    `status`, `headers`, `body`: an answer of the proxy's own. `wait`: the answer waits for it. `stall`: after `cut`,
    the connection stays, silent, until that is set. `without`: headers of the request that the registry does not get.
    """

    lost: bool = False
    answer_lost: bool = False
    cut: int | None = None
    corrupt: int | None = None
    swap: tuple[int, int, int] | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait: threading.Event | None = None
    stall: threading.Event | None = None
    without: tuple[str, ...] = ()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news here."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FaultyProxy:
    """A context manager; `host` stands for the registry `target` (host:port)."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.plan: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                owner.exchange(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_request

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """What was asked for so far: `seen` begins anew."""
        with self._lock:
            self.requests.clear()
            self._counts.clear()

    @property
    def asked(self) -> list[str]:
        """What was asked for: "GET /v2/…", queries left out."""
        return [f"{request.method} {request.path.partition('?')[0]}" for request in self.requests]

    def exchange(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with self._lock:
            # Of a forward proxy (HTTP_PROXY) the whole address is asked for.
            path = re.sub(r"^http://[^/]+", "", handler.path)
            key = handler.command, path
            self._counts[key] = self._counts.get(key, 0) + 1
            request = Request(handler.command, path, dict(handler.headers), self._counts[key])
            self.requests.append(request)
            fault = self.plan(request) or Fault()
        handler.close_connection = fault.lost or fault.answer_lost or fault.cut is not None
        if fault.lost:
            return
        if fault.status is not None:
            self._answer(handler, fault, fault.status, dict(fault.headers), fault.body, len(fault.body))
            return
        upstream = http.client.HTTPConnection(self.target, timeout=60)
        try:
            sent = {name: value for name, value in handler.headers.items() if name not in fault.without}
            upstream.request(handler.command, request.path, body=body or None, headers=sent)
            answer = upstream.getresponse()
            data = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name != "Content-Length"}
            length = int(answer.headers.get("Content-Length", len(data)))
            if not fault.answer_lost:
                self._answer(handler, fault, answer.status, headers | dict(fault.headers), data, length)
        finally:
            upstream.close()

    def _answer(
        self,
        handler: BaseHTTPRequestHandler,
        fault: Fault,
        status: int,
        headers: Mapping[str, str],
        data: bytes,
        length: int,
    ) -> None:
        if fault.wait is not None:
            fault.wait.wait(60)
        changed = bytearray(data)
        if fault.corrupt is not None:
            changed[fault.corrupt] ^= 1
        if fault.swap is not None:
            first, second, size = fault.swap
            changed[first : first + size], changed[second : second + size] = (
                changed[second : second + size],
                changed[first : first + size],
            )
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if status != 204:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(changed if fault.cut is None else changed[: fault.cut])
        handler.wfile.flush()
        if fault.stall is not None:
            fault.stall.wait(60)
