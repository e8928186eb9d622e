"""What goes between a user's terminal and a container's: the order of sizes and keys."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from unionfs.containers import frames, terminal

BEFORE, AFTER = (30, 90), (41, 77)
POLL = select.poll


class User:
    """Who sits at a terminal and has pressed a key; as soon as poll(2) has seen that one, he changes the size and
    presses another."""

    def __init__(self, stack: ExitStack) -> None:
        self.master, self.slave = pty.openpty()
        stack.callback(os.close, self.master)
        stack.callback(os.close, self.slave)
        termios.tcsetwinsize(self.master, BEFORE)
        stack.enter_context(terminal.raw(self.slave))
        os.write(self.master, b"1")
        self.watch: Callable[[], None] = lambda: None  # what has come to the other end, before each poll(2)

    def poll(self) -> Any:
        user = self

        class Late:
            def __init__(self) -> None:
                self._poll = POLL()
                self.register = self._poll.register

            def poll(self) -> list[tuple[int, int]]:
                user.watch()
                ready = self._poll.poll(20_000)
                assert ready, "nothing came"
                if user.slave in dict(ready) and termios.tcgetwinsize(user.slave) == BEFORE:
                    termios.tcsetwinsize(user.master, AFTER)
                    os.kill(os.getpid(), signal.SIGWINCH)  # as the kernel does to those whose terminal it is
                    os.write(user.master, b"2")
                    while struct.unpack("i", fcntl.ioctl(user.slave, termios.FIONREAD, b"\0" * 4)) != (2,):
                        pass  # a kernel thread brings it
                return ready

        return Late()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    with ExitStack() as stack:
        made = User(stack)
        monkeypatch.setattr(terminal, "window_size", lambda: termios.tcgetwinsize(made.slave))
        monkeypatch.setattr(select, "poll", made.poll)
        yield made


def test_keys_after_a_resize_come_to_the_monitor_behind_it(user: User) -> None:
    heard: list[tuple[bytes, bytes]] = []

    def watch() -> None:
        try:
            heard.extend(stream.feed(monitor.recv(4096)))
        except BlockingIOError:
            return
        if any(kind == frames.STDIN and b"2" in content for kind, content in heard):
            monitor.send(frames.frame(frames.EXIT, b'{"status": 7}'))

    user.watch, stream = watch, frames.Frames()
    ours, monitor = socket.socketpair()
    with ours, monitor, terminal.catching(terminal=True) as signals:
        monitor.setblocking(False)
        relay = terminal.Relay(ours, signals, stdin=user.slave, terminal=True)
        assert relay.run() == terminal.Ended(7)
    assert heard == [(frames.WINDOW, b"30 90"), (frames.WINDOW, b"41 77"), (frames.STDIN, b"12")]


def test_keys_after_a_resize_come_to_a_terminal_behind_it(user: User) -> None:
    heard: list[tuple[bytes, tuple[int, int]]] = []

    def watch() -> None:
        os.set_blocking(slave, False)
        try:
            heard.append((os.read(slave, 10), termios.tcgetwinsize(slave)))
        except BlockingIOError:
            return
        os.write(end, b"x")

    master, slave = pty.openpty()
    ended, end = os.pipe()
    user.watch = watch
    try:
        with terminal.raw(slave), terminal.catching(terminal=True) as signals:
            terminal.carry(master, user.slave, signals, ended)
    finally:
        for fd in (master, slave, ended, end):
            os.close(fd)
    assert heard == [(b"12", AFTER)]
