"""The user namespace in which containers of an ordinary user run (user_namespaces(7), subuid(5)).

    mapping()      which IDs there are: the user as 0, and behind it what /etc/subuid and /etc/subgid give, by
                   newuidmap and newgidmap (Debian package uidmap); without those, the user as 0 and nobody else
    fork(mapping)  fork(2), whose child is root of a new user namespace, with a mount namespace of its own
    inside(…)      a function called in a process that has entered the namespaces of another
    within(…)      a function called in a process of such a new namespace: what may remove files of all those IDs

A monitor lives in such namespaces, so the mount of its container's root is seen there only, and may be used by every ID
of the namespace. They are gone with the last process in them: monitor, daemon of the mount, container.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from unionfs.errors import ContainerError
from unionfs.linux.namespace import CLONE_NEWNS, CLONE_NEWUSER, setns, unshare
from unionfs.mounts.control import error_from_json, error_to_json

HELPERS: Final = ("newuidmap", "newgidmap")


class Range(NamedTuple):
    """`size` IDs, from `inside` on in the namespace, from `outside` on without."""

    inside: int
    outside: int
    size: int

    @property
    def line(self) -> str:
        return f"{self.inside} {self.outside} {self.size}"


class Mapping(NamedTuple):
    """`helped`: more than oneself is mapped, which newuidmap and newgidmap may."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]
    helped: bool

    @property
    def ids(self) -> int:
        """How many there are, of users and of groups: 0 and those behind it."""
        return min(sum(one.size for one in ranges) for ranges in (self.uids, self.gids))


def mapping(etc: str = "/etc") -> Mapping:
    """Of this process's user."""
    uid, gid = os.geteuid(), os.getegid()
    owners: set[str] = set()
    with contextlib.suppress(KeyError):  # whom newuidmap does not serve
        owners = {str(uid), pwd.getpwuid(uid).pw_name}
    uids = _subordinate(os.path.join(etc, "subuid"), owners)
    gids = _subordinate(os.path.join(etc, "subgid"), owners)
    if uids and gids and all(shutil.which(name) for name in HELPERS):
        return Mapping(_behind(uid, uids), _behind(gid, gids), True)
    return Mapping((Range(0, uid, 1),), (Range(0, gid, 1),), False)


def _subordinate(path: str, owners: set[str]) -> list[tuple[int, int]]:
    """(first, count) of the ranges of IDs that a user has by `path`. A line that makes no sense is none."""
    found = []
    try:
        with open(path) as file:
            for line in file:
                owner, _, rest = line.strip().partition(":")
                first, _, count = rest.partition(":")
                if owner in owners and first.isdecimal() and count.isdecimal() and int(count):
                    found.append((int(first), int(count)))
    except (OSError, UnicodeDecodeError):
        pass
    return found


def _behind(own: int, ranges: list[tuple[int, int]]) -> tuple[Range, ...]:
    made = [Range(0, own, 1)]
    for first, count in ranges:
        made.append(Range(made[-1].inside + made[-1].size, first, count))
    return tuple(made)


def ids_here() -> int | None:
    """How many user IDs this process's namespace has, from 0 on; None for all."""
    try:
        with open("/proc/self/uid_map") as file:
            counts = [int(line.split()[2]) for line in file]
    except (OSError, ValueError, IndexError):
        return None
    return None if sum(counts) >= (1 << 32) - 1 else sum(counts)


# processes in it ------------------------------------------------------------------------------------------------------
def fork(wanted: Mapping | None) -> int:
    """fork(2). The child is in new namespaces with this mapping, unless it is None.

    ContainerError, in the parent alone, where there may be none.
    """
    if wanted is None:
        return os.fork()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(from_child)
        os.close(to_child)
        _enter_new(to_parent, from_parent)
        return 0
    os.close(to_parent)
    os.close(from_parent)
    try:
        with open(from_child, "rb") as said:
            told = said.read()
        if told:
            raise _refused(json.loads(told))
        _write_mapping(pid, wanted)
        os.write(to_child, b"1")
    except BaseException:
        os.close(to_child)
        os.waitpid(pid, 0)
        raise
    os.close(to_child)
    return pid


def _enter_new(to_parent: int, from_parent: int) -> None:
    """The child's half: it goes on once its IDs are mapped, and ends where they are not."""
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
    except OSError as error:
        os.write(to_parent, json.dumps(error.strerror).encode())
        os._exit(1)
    os.close(to_parent)
    if not os.read(from_parent, 1):
        os._exit(1)
    os.close(from_parent)


def _refused(why: str) -> ContainerError:
    return ContainerError(
        f"no user namespace can be made: {why}",
        hint="as root: sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1 "
        "kernel.apparmor_restrict_unprivileged_userns=0, as far as they are there",
    )


def _write_mapping(pid: int, wanted: Mapping) -> None:
    if not wanted.helped:
        # A group may be mapped by who gives up changing his groups (user_namespaces(7)).
        for name, text in (("setgroups", "deny"), ("uid_map", wanted.uids[0].line), ("gid_map", wanted.gids[0].line)):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(text)
        return
    for helper, ranges in zip(HELPERS, (wanted.uids, wanted.gids), strict=True):
        words = [str(number) for one in ranges for number in one]
        done = subprocess.run([helper, str(pid), *words], capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = os.fsdecode(done.stderr).strip().splitlines() or [f"exit status {done.returncode}"]
            raise ContainerError(
                f"{helper} refuses the IDs of /etc/subuid and /etc/subgid: {said[-1]}",
                hint="is it set-user-ID root? do ranges of several users overlap?",
            )


def inside(pid: int, function: Callable[[], Any], *, mounts: bool = True) -> Any:
    """What `function` returns (JSON), called by a process in the user namespace, and with `mounts` the mount namespace,
    of process `pid`. What it raises is raised here."""
    with contextlib.ExitStack() as opened:
        entered = [("user", CLONE_NEWUSER), *([("mnt", CLONE_NEWNS)] if mounts else [])]
        fds = []
        for name, kind in entered:
            fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            fds.append((fd, kind))

        def enter() -> None:
            for fd, kind in fds:
                setns(fd, kind)

        return _answer(os.fork, enter, function)


def within(wanted: Mapping, function: Callable[[], Any]) -> Any:
    """The same, in a new namespace."""
    return _answer(lambda: fork(wanted), lambda: None, function)


def _answer(forking: Callable[[], int], enter: Callable[[], None], function: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    pid = forking()
    if pid == 0:
        os.close(reader)
        _tell(writer, enter, function)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not told:
        raise ContainerError(f"a process in the user namespace ended with {os.waitstatus_to_exitcode(status)}")
    answer = json.loads(told)
    if "error" in answer:
        raise error_from_json(answer["error"])
    return answer["result"]


def _tell(writer: int, enter: Callable[[], None], function: Callable[[], Any]) -> NoReturn:
    try:
        try:
            enter()
            answer: dict[str, Any] = {"result": function()}
        except BaseException as error:
            answer = {"error": error_to_json(error)}
        with open(writer, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
