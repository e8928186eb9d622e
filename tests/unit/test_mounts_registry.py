"""Who is mounted where: records, processes and mountinfo, each of which may be wrong alone."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requirements import requires
from tests.unit.as_user import NOBODY, run_as_nobody
from tests.unit.mounts_rig import Place
from unionfs.errors import MountError, ProtocolError
from unionfs.linux.mount import MNT_DETACH, umount2
from unionfs.mounts.registry import MountRecord, Registry, is_dead, runtime_directory, start_time

needs_mount = requires("root", "fuse", "libfuse")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.clean()


def own_record(place: Place, **changes: object) -> MountRecord:
    upper, work = os.fsencode(place.base / "upper"), os.fsencode(place.base / "work")
    record = MountRecord.for_this_process(os.fsencode(place.mnt), [b"/l\xff"], upper, work, "fusepy", {"ro": None})
    return record._replace(**changes)  # type: ignore[arg-type]


def waits_for_a_process() -> bool:
    """Whether this process has a pidfd open."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "pidfd" in os.readlink(f"/proc/self/fd/{fd}"):
                return True
    return False


# the runtime directory ------------------------------------------------------------------------------------------------
@requires("root")
def test_runtime_directory_of_a_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    above = os.open(tmp_path, os.O_PATH)  # pytest's directories are root's alone

    def check() -> None:
        made = runtime_directory({"XDG_RUNTIME_DIR": f"/proc/self/fd/{above}"})
        assert made == b"/proc/self/fd/%d/unionfs" % above
        assert os.stat(made).st_mode & 0o7777 == 0o700
        assert runtime_directory({"XDG_RUNTIME_DIR": "/does/not/exist"}) == b"/tmp/unionfs-%d" % NOBODY
        os.rmdir(b"/tmp/unionfs-%d" % NOBODY)

    run_as_nobody(check)
    os.close(above)


@requires("root")
def test_runtime_directory_of_root() -> None:
    assert runtime_directory({"XDG_RUNTIME_DIR": "/nowhere"}) == b"/run/unionfs"
    assert os.stat("/run/unionfs").st_mode & 0o7777 == 0o700


@requires("root")
def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(MountError, match="not a directory of this user's own"):
        runtime_directory({"UNIONFS_RUNTIME_DIR": str(theirs)})


def test_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MountError) as caught:
        runtime_directory({"UNIONFS_RUNTIME_DIR": str(tmp_path / "open")})
    assert caught.value.hint
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(MountError):
        runtime_directory({"UNIONFS_RUNTIME_DIR": str(tmp_path / "link")})


# records --------------------------------------------------------------------------------------------------------------
def test_claim_writes_the_record_and_takes_it_back(place: Place) -> None:
    with place.registry.claim(own_record(place)) as entry:
        (name,) = os.listdir(place.base / "run")
        told = json.loads((place.base / "run" / name).read_text())
        assert MountRecord.from_json(told) == entry.record
        assert entry.record.control == entry.control_path == os.fsencode(place.base / "run" / name[:-5]) + b".sock"
        assert place.registry.records() == [entry.record]
        assert told["layers"] == ["/l\udcff"] and told["pid"] == os.getpid()
    assert os.listdir(place.base / "run") == []


def test_record_is_taken_back_when_the_mount_fails(place: Place) -> None:
    with pytest.raises(ZeroDivisionError), place.registry.claim(own_record(place)):
        raise ZeroDivisionError
    assert os.listdir(place.base / "run") == []


def test_record_of_a_dead_process_is_swept_with_its_socket(place: Place) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name, pid, start in (("1-a", ended.pid, 5), ("2-b", os.getpid(), 1)):  # the second pid has been used again
        record = own_record(place, pid=pid, start_time=start)
        (place.base / "run" / f"{name}.json").write_text(json.dumps(record.to_json()))
        (place.base / "run" / f"{name}.sock").touch()
    assert place.registry.records() == []
    assert os.listdir(place.base / "run") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff", b"[" * 100000])
def test_what_is_no_record_is_swept(place: Place, content: bytes) -> None:
    (place.base / "run" / "1-a.json").write_bytes(content)
    (place.base / "run" / "1-a.json.tmp").write_bytes(content)
    (place.base / "run" / "README").touch()
    assert place.registry.records() == []
    assert os.listdir(place.base / "run") == ["README"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_KEYS = list(MountRecord._fields)


@given(_json | st.fixed_dictionaries(dict.fromkeys(_KEYS, _json)))
def test_any_json_is_a_record_or_a_protocol_error(told: object) -> None:
    try:
        record = MountRecord.from_json(told)
    except ProtocolError:
        return
    assert MountRecord.from_json(record.to_json()) == record or record.started != record.started  # NaN


def test_start_time_tells_processes_apart(place: Place) -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) is not None
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert start_time(sleeper.pid) is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(sleeper.pid) is None  # a zombie holds nothing
    sleeper.communicate()
    assert start_time(2**22 + 1) is None


# one upper, one mount -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ["upper", "work"])
def test_directory_of_a_live_mount_is_refused_by_whatever_name(place: Place, role: str) -> None:
    alias = place.base / "alias"
    alias.symlink_to(place.base / role)
    other = place.base / "other"
    other.mkdir()
    with place.registry.claim(own_record(place)):
        mine = own_record(place)._replace(upper=os.fsencode(alias), work=os.fsencode(other), mountpoint=b"/elsewhere")
        with pytest.raises(MountError, match=f"is used by another live mount: unionfs mount on {place.mnt}"):
            place.registry.claim(mine).__enter__()
    with place.registry.claim(mine):
        pass


def test_lock_is_held_whatever_runtime_directory_the_other_uses(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "run2"
    elsewhere.mkdir(mode=0o700)
    with place.registry.claim(own_record(place)), pytest.raises(MountError, match="one of another user"):
        Registry(os.fsencode(elsewhere)).claim(own_record(place)).__enter__()


def test_user_of_names_the_mount(place: Place) -> None:
    upper = os.fsencode(place.base / "upper")
    assert place.registry.user_of(upper) is None
    with place.registry.claim(own_record(place)):
        assert place.registry.user_of(upper) == f"unionfs mount on {place.mnt}"
    assert place.registry.user_of(b"/does/not/exist") is None


@requires("root", "overlayfs")
def test_upper_of_a_kernel_overlay_is_refused(place: Place) -> None:
    options = ",".join(
        f"{key}dir={place.base}/{name}" for key, name in (("lower", "root"), ("upper", "upper"), ("work", "work"))
    )
    # The upper's file system must be able to be one; /tmp may itself be an overlay.
    subprocess.run(["mount", "-t", "tmpfs", "none", place.base], check=True)
    try:
        for name in ("root", "upper", "work", "mnt", "run"):
            (place.base / name).mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "overlay", "none", "-o", options, place.mnt], check=True)
        try:
            assert place.registry.user_of(os.fsencode(place.base / "upper")) == f"kernel overlay on {place.mnt}"
            with pytest.raises(MountError, match="kernel overlay on"):
                place.registry.claim(own_record(place)._replace(mountpoint=b"/elsewhere")).__enter__()
        finally:
            subprocess.run(["umount", place.mnt], check=True)
    finally:
        subprocess.run(["umount", "-l", place.base], check=True)


# mounts ---------------------------------------------------------------------------------------------------------------
@needs_mount
def test_live_mount_is_listed_and_found(place: Place) -> None:
    pid = place.mount(upper=place.base / "upper", work=place.base / "work")
    found = place.registry.find(os.fsencode(place.mnt))
    assert found is not None and found.record is not None
    assert (found.state, found.record.pid, found.read_only) == ("live", pid, False)
    assert found.record.upper == os.fsencode(place.base / "upper")
    assert found in place.registry.list_mounts()
    assert place.registry.find(os.fsencode(place.mnt / "file")) is None
    assert place.registry.find(os.fsencode(place.mnt / "file"), inside=True) == found
    assert place.registry.find(os.fsencode(place.base), inside=True) is None
    (place.base / "link").symlink_to(place.mnt)
    assert place.registry.find(os.fsencode(place.base / "link")) == found
    with contextlib.chdir(place.base):
        assert place.registry.find(b"mnt") == place.registry.find(b"root/../mnt/.") == found


@needs_mount
def test_second_mount_on_the_same_upper_is_the_commands_failure(place: Place) -> None:
    place.mount(upper=place.base / "upper", work=place.base / "work")
    (place.base / "mnt2").mkdir()
    done = place.run(mountpoint=place.base / "mnt2", upper=place.base / "upper", work=place.base / "work")
    assert done.returncode == 1
    assert f"upper {place.base}/upper is used by another live mount: unionfs mount on {place.mnt}" in done.stderr
    assert "hint: unmount that first" in done.stderr


@needs_mount
def test_upper_of_a_mount_just_unmounted_is_free_when_its_daemon_has_ended(place: Place) -> None:
    pid = place.mount(upper=place.base / "upper", work=place.base / "work")
    os.kill(pid, signal.SIGSTOP)  # it does not hear of the unmount
    try:
        umount2(os.fsencode(place.mnt), MNT_DETACH)
        answer: list[str | None] = []
        asking = threading.Thread(
            target=lambda: answer.append(place.registry.user_of(os.fsencode(place.base / "upper")))
        )
        asking.start()
        while asking.is_alive() and not waits_for_a_process():
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    asking.join()
    assert answer == [None]


@needs_mount
def test_mount_whose_daemon_was_killed_is_dead(place: Place) -> None:
    pid = place.mount(upper=place.base / "upper", work=place.base / "work")
    place.kill(pid)
    found = place.registry.find(os.fsencode(place.mnt))
    assert found is not None and found.state == "dead" and found.record is not None
    # Nobody writes to its upper any more.
    assert place.registry.user_of(os.fsencode(place.base / "upper")) is None
    with pytest.raises(OSError) as caught:
        os.stat(place.mnt)
    assert caught.value.errno == errno.ENOTCONN


@needs_mount
def test_mount_without_a_record_is_foreign_or_dead(place: Place) -> None:
    pid = place.mount()
    for name in os.listdir(place.base / "run"):
        (place.base / "run" / name).unlink()
    found = place.registry.find(os.fsencode(place.mnt))
    assert found is not None and (found.state, found.record) == ("foreign", None)
    place.kill(pid)
    found = place.registry.find(os.fsencode(place.mnt))
    assert found is not None and (found.state, found.record) == ("dead", None)


@needs_mount
def test_stuck_mount_is_not_dead_and_does_not_stop_the_listing(place: Place) -> None:
    pid = place.mount()
    os.kill(pid, 19)  # SIGSTOP: it answers nothing
    try:
        assert not is_dead(os.fsencode(place.mnt), timeout=0.2)
        found = place.registry.find(os.fsencode(place.mnt))
        assert found is not None and found.state == "live"
    finally:
        os.kill(pid, 18)


def test_a_dead_mount_of_another_namespace_is_neither_shown_nor_swept(tmp_path: Path) -> None:
    registry = Registry(os.fsencode(tmp_path / "run"))
    mine = MountRecord.for_this_process(os.fsencode(tmp_path / "mnt"), [b"/l"], None, None, "devfuse")
    dead = mine._replace(start_time=1, namespace=mine.namespace + 1)
    (tmp_path / "run").mkdir(mode=0o700, exist_ok=True)
    (tmp_path / "run" / "there.json").write_text(json.dumps(dead.to_json()))
    (tmp_path / "run" / "here.json").write_text(json.dumps(dead._replace(namespace=mine.namespace).to_json()))
    assert registry.records() == []
    assert [path.name for path in (tmp_path / "run").glob("*.json")] == ["there.json"]
