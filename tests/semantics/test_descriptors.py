"""The server runs out of file descriptors: EMFILE or ENFILE for who asks, and everything else goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.golden.trees import describe
from tests.posix.tools import names, opened
from tests.semantics.unions import Union, contents, same_text

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

FILES = 300


def many(d: Path) -> None:
    (d / "many").mkdir()
    for i in range(FILES):
        (d / "many" / f"f{i}").write_bytes(b"%d" % i)


def open_until_refused(place: Path, flags: int) -> tuple[list[int], int]:
    """Descriptors of different files, and the errno of the first that could not be had (0: all could)."""
    held: list[int] = []
    for i in range(FILES):
        try:
            held.append(os.open(place / f"f{i}", flags))
        except OSError as e:
            return held, e.errno or 0
    return held, 0


@pytest.mark.unlike("kernel", "it has no descriptors")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["read", "copy-up"])
def test_server_without_descriptors_refuses_and_lives_on(union: Union, flags: int) -> None:
    lower = union.lower()
    many(lower)
    mnt = union.mount()
    wanted = contents(lower)  # not through the mount: what the kernel has read before takes no descriptor to open
    # Those it has, and a few for the clients.
    limit = len(os.listdir(f"/proc/{union.server}/fd")) + 40
    resource.prlimit(union.server, resource.RLIMIT_NOFILE, (limit, limit))
    held, refused = open_until_refused(mnt / "many", flags)
    try:
        assert refused in (errno.EMFILE, errno.ENFILE), errno.errorcode.get(refused, refused)
        assert len(held) >= 10
        # What is open is still served.
        assert os.pread(held[3], 10, 0) == b"3"
        if flags == os.O_RDWR:
            os.pwrite(held[3], b"!", 1)
            wanted["many/f3"] = b"3!"
        with contextlib.suppress(OSError):  # it may have one left, or not; neither may hurt
            os.mkdir(mnt / "x")
    finally:
        for fd in held:
            os.close(fd)
    # A release is sent after its close has returned; what is asked next is answered behind it.
    assert len(names(mnt / "many")) == FILES
    (mnt / "x").mkdir(exist_ok=True)
    os.unlink(mnt / "many" / "f299")
    wanted["x"] = None
    del wanted["many/f299"]
    assert contents(mnt) == wanted
    (mnt / "after").write_bytes(b"alive")
    union.remount()
    assert contents(mnt) == {**wanted, "after": b"alive"}
    # No half copy in the upper, no debris beside it.
    for copied in (union.upper / "many").iterdir():
        if copied.is_file():
            assert copied.read_bytes() == wanted[f"many/{copied.name}"]
    assert os.listdir(union.private / "work" / "work") == []


@pytest.mark.unlike("kernel", "it has no descriptors")
def test_walk_of_many_files_leaves_no_descriptor_behind(union: Union) -> None:
    many(union.lower())
    mnt = union.mount()
    held = len(os.listdir(f"/proc/{union.server}/fd"))
    for name in names(mnt / "many"):
        os.stat(mnt / "many" / name)
        os.listxattr(mnt / "many" / name)
        (mnt / "many" / name).read_bytes()
        os.chmod(mnt / "many" / name, 0o600)
    # A release is sent after the close has returned; what is asked next is answered behind it.
    names(mnt)
    assert len(os.listdir(f"/proc/{union.server}/fd")) <= held + 20


def a_deep_tree(d: Path) -> None:
    (d / "x" / "y" / "z" / "empty").mkdir(parents=True)
    for place in (d, d / "x" / "y", d / "x" / "y" / "z"):
        (place / "small").write_bytes(b"small")
        (place / "large").write_bytes(b"large" * 60_000)
        (place / "link").symlink_to("target")
    os.setxattr(d / "x" / "y" / "z" / "small", "user.old", b"value")


def read(path: Path) -> None:
    with opened(path, os.O_RDONLY) as fd:
        os.pread(fd, 10, 0)


def tmpfile(d: Path) -> None:
    os.close(os.open(d, os.O_TMPFILE | os.O_RDWR))


DEEP = Path("x/y/z")
#: By the request that has to open something, in a tree that nobody has looked at.
OPENING: dict[str, Callable[[Path], object]] = {
    "lookup": lambda d: os.stat(d / DEEP / "small"),
    "open": lambda d: read(d / DEEP / "small"),
    "open-large": lambda d: read(d / DEEP / "large"),
    "open-writable": lambda d: os.close(os.open(d / DEEP / "small", os.O_RDWR)),
    "open-truncating": lambda d: os.close(os.open(d / DEEP / "large", os.O_WRONLY | os.O_TRUNC)),
    "create": lambda d: os.close(os.open(d / DEEP / "new", os.O_CREAT | os.O_EXCL)),
    "tmpfile": lambda d: tmpfile(d / DEEP),
    "readdir": lambda d: os.listdir(d / DEEP),
    "walk": lambda d: [names(Path(path)) for path, _, _ in os.walk(d, onerror=refuse)],
    "readlink": lambda d: os.readlink(d / DEEP / "link"),
    "getxattr": lambda d: os.getxattr(d / DEEP / "small", "user.old"),
    "listxattr": lambda d: os.listxattr(d / DEEP / "small"),
    "setxattr": lambda d: os.setxattr(d / DEEP / "small", "user.new", b"value"),
    "removexattr": lambda d: os.removexattr(d / DEEP / "small", "user.old"),
    "chmod": lambda d: os.chmod(d / DEEP / "small", 0o600),
    "truncate": lambda d: os.truncate(d / DEEP / "large", 10),
    "mkdir": lambda d: os.mkdir(d / DEEP / "new"),
    "symlink": lambda d: os.symlink("target", d / DEEP / "new"),
    "mkfifo": lambda d: os.mkfifo(d / DEEP / "new"),
    "link": lambda d: os.link(d / DEEP / "small", d / "x" / "new"),
    "rename": lambda d: os.rename(d / DEEP / "small", d / "x" / "new"),
    "rename-directory": lambda d: os.rename(d / DEEP, d / "x" / "new"),
    "unlink": lambda d: os.unlink(d / DEEP / "small"),
    "rmdir": lambda d: os.rmdir(d / DEEP / "empty"),
    "fsync": lambda d: fsync(d / DEEP),
    "statfs": lambda d: os.statvfs(d),
}


def refuse(error: OSError) -> None:
    raise error


def fsync(directory: Path) -> None:
    with opened(directory, os.O_RDONLY) as fd:
        os.fsync(fd)


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """The process can keep what it has open, and open nothing."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.unlike("kernel", "it has no descriptors")
@pytest.mark.unlike("union-fusepy", "libfuse 2 asks by path, and has neither tmpfile nor all flags")
def test_any_request_that_cannot_open_anything_changes_nothing(union: Union) -> None:
    lower = union.lower()
    for name in OPENING:
        (lower / name).mkdir()
        a_deep_tree(lower / name)
    mnt = union.mount()
    refused = []
    for name, act in OPENING.items():
        os.stat(mnt / name)
        with without_descriptors(union.server):
            try:
                act(mnt / name)
            except OSError as e:
                assert e.errno in (errno.EMFILE, errno.ENFILE), f"{name}: {e}"
                refused.append(name)
        # Names are known by now. Nothing was changed, or everything.
        if name in refused:
            same_text(describe(lower / name), describe(mnt / name), "the lower layer", f"after {name}")
            act(mnt / name)
    assert set(OPENING) - set(refused) == {"statfs"}
    union.statistics()
    live = describe(mnt)
    union.unmount()
    assert union.debris() == []
    same_text(live, describe(union.mount()), "the live mount", "a fresh one")


@pytest.mark.unlike("kernel", "it has no descriptors")
def test_descriptor_limit_is_raised_at_the_start(union: Union) -> None:
    many(union.lower())
    union.mount()
    soft, hard = resource.prlimit(union.server, resource.RLIMIT_NOFILE)
    assert soft == hard
