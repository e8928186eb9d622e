"""`commit --pause`: the layer of a live mount is one moment, whoever goes on writing, and however.

Between the two files of the lockstep program, in the order in which a commit reads, lies a large one, so that without
the pause nearly every commit is of several moments: tried by hand (33 of 40 were), as such a test could only be flaky.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import schemas
from tests.compat import hold_client
from tests.compat.test_cli_mount import Place, is_mounted, place
from tests.requirements import requires
from tests.semantics.gate import LARGE, gated
from tests.unit.as_user import NOBODY, run_as_nobody
from tests.unit.cli_runner import PROJECT, refused
from unionfs import api
from unionfs.errors import MountError

__all__ = ["place"]  # the fixture

pytestmark = [pytest.mark.needs_fuse, requires("fuse")]

PATIENCE = 30.0
COMMITS = 6
#: Between "a" and "b" in a layer.
BETWEEN = "ab"


def lockstep(how: str, directory: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, hold_client.__file__, how, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"go\n"
    return process


def program(code: str, *argv: str | Path) -> subprocess.Popen[bytes]:
    """A Python program that says when it is about to do something: its first line on stdout."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys\n{code}", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


def mkdir(path: Path) -> subprocess.Popen[bytes]:
    """A process that makes a directory."""
    return program("print('go', flush=True)\nos.mkdir(sys.argv[1])", path)


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def numbers(layer: Path) -> tuple[int, int]:
    """A and B in a layer of the lockstep program."""
    found = []
    with tarfile.open(layer) as tar:
        names = tar.getnames()
        for name in hold_client.NAMES:
            written = [int(other.partition("-")[2]) for other in names if other.startswith(f"{name}-")]
            if name in names:
                file = tar.extractfile(name)
                assert file is not None
                written.append(int(file.read(10) or b"0"))
            found.append(max(written, default=0))
    return found[0], found[1]


def is_one_moment(layer: Path) -> bool:
    a, b = numbers(layer)
    return a in (b, b + 1)


def commit_in_lockstep(tree: Path, layer: Path, how: str) -> None:
    (tree / BETWEEN).write_bytes(bytes(8 << 20))
    with running(lockstep(how, tree)) as client:
        seen = []
        for _ in range(COMMITS):
            result = api.commit(tree, output=layer)
            assert (result.unfrozen, result.unseen) == ((), 0)
            seen.append(numbers(layer))
            assert is_one_moment(layer), seen
        assert client.poll() is None
        assert seen[-1] > seen[0] > (0, 0), "it did not go on between the commits"


def statistics(tree: Path) -> dict[str, int]:
    (found,) = [mount for mount in api.mounts() if mount.mountpoint == os.fsencode(tree)]
    assert found.statistics is not None
    return found.statistics


def state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def waits(tree: Path, count: int = 1) -> None:
    """Until so many threads wait for the hold to end."""
    until(lambda: statistics(tree)["waiting"] == count)


@pytest.fixture(params=["auto", "off"])
def tree(place: Place, request: pytest.FixtureRequest) -> Path:
    place.mount("-u", place.upper, "--passthrough", request.param)
    return place.tree


@pytest.fixture
def mounted(place: Place) -> Path:
    place.mount("-u", place.upper)
    return place.tree


# the proof ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", hold_client.HOW)
def test_layer_is_one_moment(place: Place, tree: Path, how: str) -> None:
    commit_in_lockstep(tree, place.path / "layer.tar", how)


@requires("root", "fusermount3")
@pytest.mark.parametrize("how", ["mmap", "mixed", "rename"])
def test_layer_of_a_users_mount_is_one_moment(open_tmp: Path, device_for_all: None, how: str) -> None:
    def work() -> None:
        os.environ["XDG_RUNTIME_DIR"] = str(open_tmp / "run")
        for name in ("run", "layer", "tree"):
            (open_tmp / name).mkdir(mode=0o700)
        api.mount(open_tmp / "tree", [open_tmp / "layer"], open_tmp / "upper")
        try:
            assert os.geteuid() == NOBODY
            commit_in_lockstep(open_tmp / "tree", open_tmp / "layer.tar", how)
        finally:
            api.umount(open_tmp / "tree")

    run_as_nobody(work)


def test_layer_of_an_image_is_one_moment(place: Place, tree: Path) -> None:
    store = api.image_store(place.path / "store")
    (tree / BETWEEN).write_bytes(bytes(8 << 20))
    with running(lockstep("mixed", tree)):
        for i in range(COMMITS):
            image = api.commit_image(store, f"moment:{i}", tree)
            assert image.digest is not None and image.held_seconds is not None
            assert is_one_moment(place.path / "store/blobs" / image.digest.replace(":", "/"))


def test_diff_is_of_one_moment(tree: Path) -> None:
    with running(lockstep("unlink", tree)):
        for _ in range(COMMITS):
            names = [os.fsdecode(change.path) for change in api.diff(tree)]
            a, b = (max(int(name[2:]) for name in names if name.startswith(f"{x}-")) for x in "ab")
            assert a in (b, b + 1)


# what waits, and what does not --------------------------------------------------------------------------------------
CHANGES = {
    "mkdir": "os.mkdir('new')",
    "create": "open('new', 'x')",
    "open-for-writing": "open('file', 'a')",
    "truncate": "os.truncate('file', 1)",
    "chmod": "os.chmod('file', 0o600)",
    "utime": "os.utime('file')",
    "unlink": "os.unlink('file')",
    "rename": "os.rename('file', 'new')",
    "rmdir": "os.rmdir('empty')",
    "link": "os.link('file', 'new')",
    "symlink": "os.symlink('x', 'new')",
    "mkfifo": "os.mkfifo('new')",
    "setxattr": "os.setxattr('file', 'user.x', b'y')",
    "removexattr": "os.removexattr('marked', 'user.x')",
    "tmpfile": "os.open('.', os.O_TMPFILE | os.O_RDWR)",
}


def stored(directory: Path) -> list[tuple[str, int, int, int, list[str]]]:
    """All that changes can change in an upper: types and modes, sizes, times, and the names of xattrs."""
    found = []
    for path in sorted(directory.rglob("*")):
        st = path.lstat()
        names = os.listxattr(path, follow_symlinks=False)
        found.append((str(path), st.st_mode, st.st_size, st.st_mtime_ns, sorted(names)))
    return found


def test_changes_wait_and_are_made_afterwards(place: Place) -> None:
    for how in CHANGES:
        (place.layer / how / "empty").mkdir(parents=True)
        (place.layer / how / "file").write_text("content")
    place.mount("-u", place.upper)
    for how in CHANGES:
        (place.tree / how / "marked").touch()
        os.setxattr(place.tree / how / "marked", "user.x", b"y")
    with contextlib.ExitStack() as stack, api.held(place.tree) as hold:
        before = {how: stored(place.upper / how) for how in CHANGES}
        code = "os.chdir(sys.argv[1])\nprint('go', flush=True)\n"
        clients = [stack.enter_context(running(program(code + CHANGES[how], place.tree / how))) for how in CHANGES]
        waits(place.tree, len(CHANGES))
        assert {how: stored(place.upper / how) for how in CHANGES} == before
        hold.end()
        assert [client.wait(PATIENCE) for client in clients] == [0] * len(CHANGES)
    assert hold.seconds is not None and hold.seconds > 0
    after = {how: stored(place.upper / how) for how in CHANGES}
    # The first sign of an open for writing is the copy; a file without a name is none.
    assert [how for how in CHANGES if after[how] == before[how]] == ["tmpfile"]


def test_reads_go_on_while_many_wait(tree: Path) -> None:
    """More wait than there are threads in the daemon."""
    (tree / "large").write_bytes(b"x" * 1_000_000)
    for i in range(30):
        (tree / f"d{i}").mkdir()
    with api.held(tree) as hold:
        clients = [mkdir(tree / f"d{i}/new") for i in range(30)]
        try:
            waits(tree, 30)
            assert (tree / "etc/motd").read_text() == "welcome\n"
            assert len((tree / "large").read_bytes()) == 1_000_000
            assert len(os.listdir(tree)) == 32 and not (tree / "none").exists()
            assert os.statvfs(tree).f_blocks and os.stat(tree / "etc").st_ino
            with open(tree / "etc/motd") as file:
                os.fsync(file.fileno())
            hold.end()
            assert [client.wait(PATIENCE) for client in clients] == [0] * 30
        finally:
            for client in clients:
                client.kill()
                client.communicate()
    assert all((tree / f"d{i}/new").is_dir() for i in range(30))


def test_writes_of_an_open_file_wait(place: Place, tree: Path) -> None:
    code = "file = open(sys.argv[1], 'wb', 0)\nprint('go', flush=True)\nsys.stdin.read(1)\nfile.write(b'new')"
    with running(program(code, tree / "f")) as client:
        with api.held(tree) as hold:
            assert client.stdin is not None
            client.stdin.write(b"!")
            client.stdin.flush()
            # It is frozen where the kernel writes the file itself, and else waits for us.
            until(lambda: state(client) == "t" or statistics(tree)["waiting"] == 1)
            assert (place.upper / "f").read_bytes() == b""
            hold.end()
            assert client.wait(PATIENCE) == 0
        assert (place.upper / "f").read_bytes() == b"new"


def test_who_dies_while_waiting_is_gone_and_has_done_nothing(mounted: Path) -> None:
    with (
        api.held(mounted),
        running(mkdir(mounted / "new")) as client,
    ):
        waits(mounted)
        client.kill()
        assert client.wait(PATIENCE) == -signal.SIGKILL
        waits(mounted, 0)
    assert not (mounted / "new").exists()


def test_who_handles_a_signal_while_waiting_is_told(mounted: Path) -> None:
    code = """
signal.signal(signal.SIGUSR1, lambda *_: None)
print('go', flush=True)
try:
    os.mkdir(sys.argv[1] + '/new')
except InterruptedError:
    sys.exit(7)
"""
    with api.held(mounted), running(program(code, mounted)) as client:
        waits(mounted)
        client.send_signal(signal.SIGUSR1)
        assert client.wait(PATIENCE) == 7
    assert not (mounted / "new").exists()


def test_who_is_stopped_and_continued_while_waiting_goes_on(mounted: Path) -> None:
    with api.held(mounted) as hold, running(mkdir(mounted / "new")) as client:
        waits(mounted)
        client.send_signal(signal.SIGSTOP)
        client.send_signal(signal.SIGCONT)
        waits(mounted)
        hold.end()
        assert client.wait(PATIENCE) == 0
    assert (mounted / "new").is_dir()


# frozen processes ---------------------------------------------------------------------------------------------------
def mapping(tree: Path) -> subprocess.Popen[bytes]:
    """A process that does nothing but count in a shared mapping."""
    (tree / "f").write_bytes(bytes(4096))
    code = """
import mmap
with open(sys.argv[1], 'r+b') as file: counter = mmap.mmap(file.fileno(), 4096)
print('go', flush=True)
while True: counter[:4] = (int.from_bytes(counter[:4], 'little') + 1).to_bytes(4, 'little')
"""
    return program(code, tree / "f")


def count(tree: Path) -> int:
    return int.from_bytes((tree / "f").read_bytes()[:4], "little")


def test_parent_of_a_frozen_process_sees_no_stop(tree: Path) -> None:
    with running(mapping(tree)) as client:
        with api.held(tree) as hold:
            assert (hold.unfrozen, hold.unseen) == ((), 0)
            assert state(client) == "t"
            assert os.waitpid(client.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED) == (0, 0)
            before = count(tree)
            assert count(tree) == before
        until(lambda: count(tree) > before)
        assert os.waitpid(client.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED) == (0, 0)


def test_frozen_process_that_is_killed_is_gone_for_its_parent(tree: Path) -> None:
    with running(mapping(tree)) as client, api.held(tree):
        assert state(client) == "t"
        client.kill()
        assert client.wait(PATIENCE) == -signal.SIGKILL


def test_signal_sent_to_a_frozen_process_comes_afterwards(tree: Path) -> None:
    with running(mapping(tree)) as client, api.held(tree) as hold:
        client.send_signal(signal.SIGTERM)
        assert state(client) == "t" and client.poll() is None
        hold.end()
        assert client.wait(PATIENCE) == -signal.SIGTERM


def test_process_that_somebody_else_traces_goes_on_and_is_named(place: Place, tree: Path) -> None:
    tracer = """
from unionfs.linux import ptrace
ptrace._ptrace(0x4206, int(sys.argv[1]), 0, 0)
print('go', flush=True)
sys.stdin.read()
"""
    with running(mapping(tree)) as client, running(program(tracer, str(client.pid))):
        with api.held(tree) as hold:
            assert hold.unfrozen == (client.pid,)
        ran = place.run("commit", tree, "-o", place.path / "layer.tar")
        assert ran.status == 0 and ran.out.startswith(b"sha256:")
        assert ran.errors[0].startswith("warning: ") and f"process {client.pid}" in ran.errors[0]
        assert ran.errors[1].startswith("hint: ")
        told = schemas.Commit.model_validate_json(
            place.run("commit", tree, "-o", place.path / "layer.tar", "--json").out
        )
        assert told.unfrozen == [client.pid]


def test_file_that_no_process_has_open_is_counted(mounted: Path) -> None:
    """Its descriptor is under way in a socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open(mounted / "f", "wb") as file:
        socket.send_fds(ours, [b"x"], [file.fileno()])
        file.close()
        with api.held(mounted) as hold:
            assert (hold.unfrozen, hold.unseen) == ((), 1)
            ((what, _),) = hold.warnings()
            assert "somebody unknown" in what


# what is in progress --------------------------------------------------------------------------------------------------
@requires("root")
def test_copy_up_in_progress_ends_first(place: Place) -> None:
    """The lower file is behind a gate, and so is the hold."""
    root, behind = place.path / "root", place.path / "behind"
    for directory in (root, behind):
        directory.mkdir()
    (root / "large").write_bytes(b"x" * (2 * LARGE))
    granted: list[int] = []

    def hold() -> None:
        with api.held(place.tree):
            granted.append((place.upper / "large").stat().st_size)

    with gated(root, behind) as gate:
        place.mount("-l", behind, "-u", place.upper)
        gate.shut("read")
        holder = threading.Thread(target=hold)
        append = "print('go', flush=True)\nopen(sys.argv[1], 'a').write('!')"
        many = "print('go', flush=True)\nfor i in range(10**9): os.mkdir(f'{sys.argv[1]}/{i}')"
        with running(program(append, place.tree / "large")) as client, running(program(many, place.tree)):
            gate.reached()
            holder.start()
            waits(place.tree)
            assert granted == [] and client.poll() is None
            gate.open()
            holder.join(PATIENCE)
            assert client.wait(PATIENCE) == 0
        assert not holder.is_alive() and granted in ([2 * LARGE], [2 * LARGE + 1])
        place.run("umount", place.tree)


# how a hold ends ----------------------------------------------------------------------------------------------------
def test_hold_ends_with_the_process_that_has_it(mounted: Path) -> None:
    code = """
from unionfs import api
with api.held(sys.argv[1]):
    print('held', flush=True)
    signal.pause()
"""
    with running(mapping(mounted)) as frozen, running(program(code, mounted)) as holder:
        assert (state(frozen), statistics(mounted)["holding"]) == ("t", 1)
        before = count(mounted)
        holder.kill()
        until(lambda: count(mounted) > before)
        (mounted / "new").mkdir()
        assert statistics(mounted)["holding"] == 0 and frozen.poll() is None


def test_hold_of_two_ends_with_the_last(mounted: Path) -> None:
    with api.held(mounted) as one:
        with (
            api.held(mounted),
            running(mkdir(mounted / "new")) as client,
        ):
            waits(mounted)
            assert statistics(mounted)["holding"] == 2
            one.end()
            assert statistics(mounted)["holding"] == 1
            waits(mounted)
        assert client.returncode is not None
    counted = statistics(mounted)
    assert (counted["holds"], counted["holding"], counted["waiting"]) == (1, 0, 0) and counted["held_milliseconds"] > 0


def test_hold_ends_at_its_time_limit_and_that_is_told(mounted: Path) -> None:
    with pytest.raises(MountError, match="not held to the end") as raised, api.held(mounted, limit=0.2) as hold:
        (mounted / "new").mkdir()  # returns when the hold is over
        hold.end()
    assert raised.value.hint and "--pause-limit" in raised.value.hint


def test_commit_over_its_time_limit_leaves_the_old_layer(place: Place, mounted: Path) -> None:
    layer = place.path / "layer.tar"
    layer.write_bytes(b"old")
    (mounted / "large").write_bytes(bytes(4 << 20))

    def progress(done: int) -> None:
        until(lambda: statistics(mounted)["holding"] == 0)

    with pytest.raises(MountError, match="not held to the end"):
        api.commit(mounted, output=layer, progress=progress, pause_limit=0.1)
    assert layer.read_bytes() == b"old" and sorted(place.path.glob(".layer*")) == []


@pytest.mark.parametrize("end", ["SIGTERM", "umount"])
def test_unmount_ends_a_hold(place: Place, mounted: Path, end: str) -> None:
    server = place.status().pid
    assert server is not None
    gone = os.pidfd_open(server)
    with pytest.raises(MountError, match="not held to the end"), api.held(mounted):
        if end == "umount":
            assert place.run("umount", mounted).status == 0
        else:
            with running(mkdir(mounted / "new")) as client:
                os.kill(server, signal.SIGTERM)
                assert client.wait(PATIENCE) == 0
    assert select.select([gone], [], [], PATIENCE)[0]
    os.close(gone)
    assert not is_mounted(mounted)


# the commands -------------------------------------------------------------------------------------------------------
def test_output_inside_the_mount_is_refused_while_it_is_held(place: Place, mounted: Path) -> None:
    refused(place.run("commit", mounted, "-o", mounted / "layer.tar"), 1, "lies in the mount", "--no-pause")
    ran = place.run("commit", mounted, "-o", mounted / "layer.tar", "--no-pause")
    assert (ran.status, ran.err) == (0, b"")


def test_own_output_inside_the_mount_is_refused_while_it_is_held(mounted: Path) -> None:
    command = [sys.executable, "-m", "cli", "diff", str(mounted)]
    with open(mounted / "said", "w+") as said:
        done = subprocess.run(command, cwd=PROJECT, text=True, timeout=PATIENCE, stdout=said, stderr=subprocess.PIPE)
        assert done.returncode == 1 and "standard output leads into the mount" in done.stderr
        done = subprocess.run(command, cwd=PROJECT, text=True, timeout=PATIENCE, stdout=subprocess.PIPE, stderr=said)
        said.seek(0)
        assert done.returncode == 1 and "standard error leads into the mount" in said.read()


def test_json_tells_how_long_changes_were_held(place: Place, mounted: Path) -> None:
    (mounted / "new").touch()
    for option, is_held in (("--pause", True), ("--no-pause", False)):
        ran = place.run("commit", mounted, "-o", place.path / "layer.tar", "--json", option)
        told = json.loads(ran.out)
        assert (ran.status, told["held_seconds"] is not None, told["unfrozen"]) == (0, is_held, [])
        assert place.run("diff", mounted, option).lines == ["A /new"]
    assert statistics(mounted)["holds"] == 2


@requires("libfuse")
def test_mount_that_cannot_be_held_is_read_all_the_same_and_that_is_said(place: Place) -> None:
    place.mount("-u", place.upper, "--transport", "fusepy")
    ran = place.run("commit", place.tree, "-o", place.path / "layer.tar")
    assert ran.status == 0 and re.match("warning: changes go on .*fusepy", ran.errors[0])
    assert place.run("commit", place.tree, "-o", place.path / "layer.tar", "--no-pause").err == b""
