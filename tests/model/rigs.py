"""Where the layers of an example live, and the mounts made of them.

A `Bench` is a directory on tmpfs (a workdir may not lie on another overlay, and nothing is to survive) with the
layers of one stack. Everything made here is removed by `close`, mounts first.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import importlib
import logging
import os
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Literal

from unionfs.changeset.tar_format import DIR, FIFO, LINK, REG, SYMLINK, TRAILER, Fields, member, padding
from unionfs.image.layer_cache import LayerCache
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.upper import WritableDirectory
from unionfs.overlay import UnionFilesystem, UnionOptions
from unionfs.transport import MountOptions

from .drivers import KnownDifference, PathDriver
from .layers import PRIVILEGED, XATTR_PREFIX, Stack, build
from .model import fail

_libc = ctypes.CDLL(None, use_errno=True)
MNT_DETACH, MS_REMOUNT = 2, 32

Store = Literal["native", "user", "aufs", "ramfs"]

#: How an upper may be stored, and what of it a new mount does not know: st_ino of copied-up objects ("numbers": found
#: by their handles, which takes privilege), which names were one file in a lower layer ("links").
_NUMBERS: frozenset[str] = frozenset() if PRIVILEGED else frozenset({"numbers"})
STORES: dict[Store, frozenset[str]] = {
    "native": _NUMBERS,  # as the kernel's, in the namespace that is permitted
    "user": frozenset({"numbers"}),  # xattrs in user.*, which symbolic links and fifos cannot have
    "aufs": _NUMBERS,  # an upper whose root says that `.wh.` names are its whiteouts
    "ramfs": frozenset({"numbers", "links"}),  # no xattrs at all, no file handles, no RENAME_WHITEOUT; root only
}


@cache
def scratch() -> str:
    """A directory whose file system may hold an upper, preferably in memory."""
    candidates = ["/dev/shm", tempfile.gettempdir()]
    for candidate in candidates:
        if os.path.isdir(candidate) and os.access(candidate, os.W_OK) and _takes_xattrs(candidate):
            return candidate
    raise AssertionError(f"no directory among {candidates} takes {XATTR_PREFIX}* extended attributes")


def _takes_xattrs(directory: str) -> bool:
    probe = tempfile.mkdtemp(dir=directory)
    try:
        os.setxattr(probe, f"{XATTR_PREFIX}overlay.probe", b"y")
    except OSError:
        return False
    finally:
        os.rmdir(probe)
    return True


def mount(source: str, target: str, kind: str, options: str) -> None:
    _while_busy(lambda: _libc.mount(source.encode(), os.fsencode(target), kind.encode(), 0, options.encode()))


def umount(target: str) -> None:
    try:
        _while_busy(lambda: _libc.umount2(os.fsencode(target), 0))
    except OSError:
        _libc.umount2(os.fsencode(target), MNT_DETACH)
        raise


def _while_busy(call: Callable[[], int]) -> None:
    """Again for a while after EBUSY: somebody who starts a container has a copy of our mounts for a moment, which keeps
    an unmounted upper in use."""
    end = time.monotonic() + 10
    while call() < 0:
        code = ctypes.get_errno()
        if code != errno.EBUSY or time.monotonic() > end:
            fail(code)
        time.sleep(0.01)


def forget(target: str) -> None:
    """Have the kernel drop the entries and inodes of a mount that nobody holds: a remount shrinks its dcache."""
    if _libc.mount(b"none", os.fsencode(target), b"none", MS_REMOUNT, b"") < 0:
        fail(ctypes.get_errno())


class Bench:
    """The layers of one stack on disk, and what is mounted of them, all with `metacopy` or without. `packed`: our
    engine reads the lowers of the beginning, which are all in AUFS's encoding, from tars."""

    def __init__(self, stack: Stack, store: Store = "native", metacopy: bool = False, packed: bool = False) -> None:
        self.store = store
        self.metacopy = metacopy
        self.directory = tempfile.mkdtemp(prefix="unionfs-model-", dir=scratch())
        self.mounted: list[str] = []
        if store == "ramfs":
            mount("unionfs-model", self.directory, "ramfs", "")
            self.mounted.append(self.directory)
        os.chmod(self.directory, 0o755)
        self.lowers, self.upper, self.work = build(stack, self.directory, "user." if store == "user" else XATTR_PREFIX)
        self._mark(self.upper)
        self._packed = {path: pack(path) for path in self.lowers} if packed else {}
        self.servers: dict[str, Server] = {}
        self.quirks: set[KnownDifference] = {"unmarked upper"} if stack.upper else set()

    def kernel(self, name: str = "kernel") -> PathDriver:
        """Kernel overlayfs on these layers, with what DESIGN promises to be compatible with."""

        def start(at: str) -> None:
            metacopy = "on" if self.metacopy else "off"
            layers = f"lowerdir={':'.join(self.lowers)},upperdir={self.upper},workdir={self.work}"
            mount("overlay", at, "overlay", f"{layers},redirect_dir=on,index=on,metacopy={metacopy},nfs_export=off")

        return self._driver(name, start, self.quirks)

    def ours(self, transport: str, passthrough: bool, name: str = "ours") -> PathDriver:
        """Our file system on these layers, mounted by a process of its own."""

        def start(at: str) -> None:
            self.servers[at] = Server(self, at, transport, passthrough)

        return self._driver(name, start, {"stale readers"} if passthrough else set())

    def _mark(self, upper: str) -> None:
        """Make a new upper one of our store's kind, its times kept."""
        if self.store == "aufs":
            st = os.stat(upper)
            os.close(os.open(f"{upper}/.wh..wh.aufs", os.O_CREAT | os.O_WRONLY, 0o600))
            os.utime(upper, ns=(st.st_atime_ns, st.st_mtime_ns))

    def filesystem(self) -> UnionFilesystem:
        options = UnionOptions(xattr_prefix=b"user." if self.store == "user" else None, metacopy=self.metacopy)
        cache = LayerCache(f"{self.directory}/cache")
        lowers = [
            cache.open_file(self._packed[path]) if path in self._packed else DirectoryLayer(path)
            for path in self.lowers
        ]
        return UnionFilesystem(lowers, WritableDirectory(self.upper), WritableDirectory(self.work), options)

    def push(self) -> None:
        """Nothing is mounted; the upper becomes the topmost lower, below a new one."""
        self.lowers.insert(0, self.upper)
        turn = len(self.lowers)
        self.upper, self.work = f"{self.directory}/upper{turn}", f"{self.directory}/work{turn}"
        os.mkdir(self.work)
        os.mkdir(self.upper)
        st = os.stat(self.lowers[0])
        os.chown(self.upper, st.st_uid, st.st_gid)
        os.chmod(self.upper, stat.S_IMODE(st.st_mode))
        for name in os.listxattr(self.lowers[0]):
            if not name.startswith(f"{XATTR_PREFIX}overlay.") or name.startswith(f"{XATTR_PREFIX}overlay.overlay."):
                os.setxattr(self.upper, name, os.getxattr(self.lowers[0], name))
        os.utime(self.upper, ns=(st.st_atime_ns, st.st_mtime_ns))
        self._mark(self.upper)

    def _driver(self, name: str, make: Callable[[str], None], quirks: set[KnownDifference]) -> PathDriver:
        at = f"{self.directory}/{name}"
        os.makedirs(at, exist_ok=True)

        def start() -> None:
            make(at)
            self.mounted.append(at)

        def stop() -> None:
            if at in self.mounted:
                self.mounted.remove(at)
                umount(at)
            if at in self.servers:
                self.servers.pop(at).join()

        return PathDriver(at, start, stop, lambda: forget(at), self.push, quirks)

    def close(self) -> None:
        for at in reversed(self.mounted):
            _libc.umount2(os.fsencode(at), MNT_DETACH)
        for server in self.servers.values():
            server.kill()
        shutil.rmtree(self.directory, onerror=_make_removable)


def pack(root: str) -> str:
    """A directory as a tar beside it: the path of that."""
    done: dict[int, bytes] = {}
    with open(f"{root}.tar", "wb") as tar:
        for directory, directories, files in os.walk(root):
            for name in [".", *sorted(files), *sorted(n for n in directories if os.path.islink(f"{directory}/{n}"))]:
                path = os.path.normpath(f"{directory}/{name}")
                st, shown = os.lstat(path), os.fsencode(os.path.relpath(path, root))
                first = done.setdefault(st.st_ino, shown)
                if first != shown and not stat.S_ISDIR(st.st_mode):
                    tar.write(member(Fields(shown, LINK, linkname=first)))
                    continue
                xattrs = {os.fsencode(x): os.getxattr(path, x, follow_symlinks=False) for x in _xattrs(path)}
                data = b""
                if stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as file:
                        data = file.read()
                target = os.fsencode(os.readlink(path)) if stat.S_ISLNK(st.st_mode) else b""
                fields = Fields(
                    shown, _TAR_TYPES[stat.S_IFMT(st.st_mode)], stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid,
                    len(data), st.st_mtime_ns, target,
                )  # fmt: skip
                tar.write(member(fields, xattrs) + data + bytes(padding(len(data))))
        tar.write(TRAILER)
    return f"{root}.tar"


_TAR_TYPES = {stat.S_IFDIR: DIR, stat.S_IFREG: REG, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO}


def _xattrs(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


class Server:
    """A child process that serves one mount. Forked, not started anew: that takes milliseconds, and an example needs
    several. `log` is what it wrote on stderr; a traceback there is a failure even if every answer was right."""

    def __init__(self, bench: Bench, at: str, transport: str, passthrough: bool) -> None:
        self.log = f"{bench.directory}/{os.path.basename(at)}.log"
        ready, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(ready)
                code = self._serve(bench, at, transport, passthrough, said)
            finally:
                os._exit(code)
        os.close(said)
        try:
            assert os.read(ready, 1) == b"r", f"the server did not start\n{self._said()}"
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(ready)

    def _serve(self, bench: Bench, at: str, transport: str, passthrough: bool, said: int) -> int:
        """The child's life. Never returns into the test run."""
        os.closerange(3, said)  # what the parent has open in other mounts would keep them busy
        os.closerange(said + 1, os.sysconf("SC_OPEN_MAX"))
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's affair
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.root.handlers[:] = [logging.StreamHandler(sys.stderr)]  # those of the parent are closed by now
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        os.umask(0)
        try:
            serve = importlib.import_module(f"unionfs.transport.{transport}").serve
            fs = bench.filesystem()
            serve(fs, os.fsencode(at), MountOptions(passthrough=passthrough), lambda: os.write(said, b"r"))
            fs.check_invariants()
            fs.close()
        except BaseException:
            traceback.print_exc()
            return 1
        return 0

    def _said(self) -> str:
        try:
            with open(self.log, errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def join(self) -> None:
        """Wait for the end, which follows the unmount. AssertionError if it had anything to complain of.

        A server that stays is made to write its stacks into the log and killed. (Also if it cannot know: a mount
        namespace made by somebody meanwhile has a copy of the mount. Those of a container being started are short.)
        """
        watchdog = threading.Timer(60, self._interrupt)
        watchdog.start()
        try:
            _, status = os.waitpid(self.pid, 0)
        finally:
            watchdog.cancel()
        said = self._said()
        assert status == 0 and "Traceback" not in said, f"the server ended with {status}\n{said}"

    def _interrupt(self) -> None:
        try:
            os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.5)  # for faulthandler to write
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):  # gone, and waited for
            pass


def _make_removable(_function: object, path: str, _info: object) -> None:
    """work/work has mode 000, which matters to other users than root."""
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
