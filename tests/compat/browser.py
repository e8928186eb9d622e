"""A headless Chromium that a test speaks to over two pipes: the DevTools protocol, JSON messages that end with a zero
byte (--remote-debugging-pipe; chromium, content/browser/devtools/devtools_pipe_handler.cc).

    with browser() as chromium, chromium.page(file, dark=True) as page:
        page.evaluate("document.title")
        page.press("ArrowDown")
        page.screenshot()          # -> Pixels

INVARIANT: everything that the page logged, threw or asked for is in `messages` and `requests` once a call that came
           after it has returned.
"""

from __future__ import annotations

import base64
import json
import os
import select
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = "chromium-headless-shell"

#: Seconds after which a browser that does not answer is given up.
PATIENCE = 60.0

#: What keys are called (UI Events): a key that writes something has its text.
_KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "End": (35, ""),
    "Home": (36, ""),
    "PageDown": (34, ""),
}
_KEYS |= {"ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""), "Tab": (9, "")}

Rgb = tuple[int, int, int]


class Pixels:
    """A decoded PNG of 8-bit RGB or RGBA, as screenshots are."""

    def __init__(self, png: bytes) -> None:
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        at, data = 8, b""
        while at < len(png):
            length, kind = struct.unpack_from(">I4s", png, at)
            body = png[at + 8 : at + 8 + length]
            if kind == b"IHDR":
                self.width, self.height, depth, colour = struct.unpack_from(">IIBB", body)
                assert (depth, colour) in ((8, 2), (8, 6))
                self._size = 3 if colour == 2 else 4
            elif kind == b"IDAT":
                data += body
            at += 12 + length
        self._rows = self._unfiltered(zlib.decompress(data))

    def at(self, x: float, y: float) -> Rgb:
        start = int(x) * self._size
        red, green, blue = self._rows[int(y)][start : start + 3]
        return red, green, blue

    def _unfiltered(self, raw: bytes) -> list[bytearray]:
        """PNG, 9.2 "Filter types for filter method 0"."""
        size, stride = self._size, self.width * self._size
        rows, above = [], bytearray(stride)
        for number in range(self.height):
            start = number * (stride + 1)
            kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
            if kind == 1:
                for i in range(size, stride):
                    row[i] = (row[i] + row[i - size]) & 255
            elif kind == 2:
                row = bytearray((a + b) & 255 for a, b in zip(row, above, strict=True))
            elif kind == 3:
                for i in range(stride):
                    row[i] = (row[i] + ((row[i - size] if i >= size else 0) + above[i]) // 2) & 255
            elif kind == 4:
                for i in range(stride):
                    left, corner = (row[i - size], above[i - size]) if i >= size else (0, 0)
                    row[i] = (row[i] + _paeth(left, above[i], corner)) & 255
            rows.append(row)
            above = row
        return rows


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    near = [(abs(guess - left), 0, left), (abs(guess - above), 1, above), (abs(guess - corner), 2, corner)]
    return min(near)[2]


class Browser:
    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command, and its result; events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            told = self._read()
            if told.get("id") == self._last:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result
            self.events.append(told)

    def wait(self, method: str, session: str) -> None:
        """Until an event has come."""
        while not any(event.get("method") == method and event.get("sessionId") == session for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._back, 1 << 16) if ready else b""
            assert data, "the browser is gone, or does not answer"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    @contextmanager
    def page(
        self, file: Path, *, dark: bool = False, width: int = 1280, height: int = 900, part: str = ""
    ) -> Iterator[Page]:
        """A file in a window of its own. `part`: what comes after the `#`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.call(f"{domain}.enable")
            page.resize(width, height)
            page.set_dark(dark)
            url = file.resolve().as_uri() + (f"#{part}" if part else "")
            page.call("Page.navigate", url=url)
            self.wait("Page.loadEventFired", session)
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def set_dark(self, dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, script: str) -> Any:
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            code, text = _KEYS.get(key, (ord(key[0].upper()), key))
            about = {"key": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
        self.settle()

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)
        self.settle()

    def click(self, selector: str, text: str = "") -> None:
        """In the middle of the first element that is seen and has this text."""
        script = f"""(() => {{
            for (const one of document.querySelectorAll({json.dumps(selector)})) {{
                const box = one.getBoundingClientRect();
                if (box.width && one.textContent.includes({json.dumps(text)}))
                    return [box.x + box.width / 2, box.y + box.height / 2];
            }}
        }})()"""
        place = self.evaluate(script)
        assert place, f"there is no {selector} with {text!r}"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        self.settle()

    def settle(self) -> None:
        """Until what was done is drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def screenshot(self) -> Pixels:
        return Pixels(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def requests(self) -> list[str]:
        """What was asked for, the page itself first."""
        sent = self._told("Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]

    @property
    def messages(self) -> list[str]:
        """Of the console, of scripts that failed, of a policy that was broken."""
        found = [one["exceptionDetails"]["text"] for one in self._told("Runtime.exceptionThrown")]
        found += [json.dumps(one["args"]) for one in self._told("Runtime.consoleAPICalled")]
        return found + [one["entry"]["text"] for one in self._told("Log.entryAdded")]

    def _told(self, method: str) -> list[dict[str, Any]]:
        return [
            event["params"]
            for event in self._browser.events
            if event.get("method") == method and event.get("sessionId") == self._session
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """Without a sandbox of its own, since tests run as root; what it opens are our own pages."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        # The browser has its pipes as descriptors 3 and 4, which bash gives it whatever numbers they have here.
        options = "--no-sandbox --disable-gpu --hide-scrollbars --disable-dev-shm-usage --remote-debugging-pipe"
        process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" {options} "$@" 3<&{to_read} 4>&{back_write}',
                COMMAND,
                f"--user-data-dir={home}",
            ],
            pass_fds=(to_read, back_write),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": home},
        )
        os.close(to_read)
        os.close(back_write)
        try:
            made = Browser(to_write, back_read)
            yield made
            made.call("Browser.close")
        finally:
            os.close(to_write)
            os.close(back_read)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
