"""What root's mount is like unless asked otherwise: devices open, set-user-ID works, programs run, atime is relative.

fuse-overlayfs mounts nodev and nosuid through fusermount, and its users find out in a chroot.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.posix.tools import NOBODY, opened
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

HOUR = 3600 * 10**9


def devices_and_programs(d: Path) -> None:
    d.chmod(0o755)
    os.mknod(d / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(d / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    program = shutil.which("id")
    assert program is not None
    shutil.copy(program, d / "id")
    (d / "id").chmod(0o4755)
    os.mkfifo(d / "fifo")


def works(mnt: Path) -> None:
    with opened(mnt / "null", os.O_RDWR) as fd:
        assert os.write(fd, b"gone") == 4
        assert os.read(fd, 10) == b""
    with opened(mnt / "zero", os.O_RDONLY) as fd:
        assert os.read(fd, 4) == bytes(4)
    done = subprocess.run([mnt / "id", "-u"], capture_output=True, user=NOBODY, group=NOBODY, timeout=20)
    assert done.stdout == b"0\n", done.stderr
    flags = os.statvfs(mnt).f_flag
    assert flags & (os.ST_NODEV | os.ST_NOSUID | os.ST_NOEXEC | os.ST_RDONLY) == 0


@pytest.mark.populate(base=devices_and_programs)
def test_devices_and_set_user_id_of_a_lower_layer(mnt: Path) -> None:
    works(mnt)


@pytest.mark.populate(base=devices_and_programs)
def test_devices_and_set_user_id_after_copy_up_and_rename(mnt: Path) -> None:
    for name in ("null", "zero", "id"):
        os.utime(mnt / name, ns=(0, 0))
        os.rename(mnt / name, mnt / "tmp")
        os.rename(mnt / "tmp", mnt / name)
    works(mnt)


def test_devices_and_set_user_id_made_in_the_mount(mnt: Path) -> None:
    devices_and_programs(mnt)
    works(mnt)


@pytest.mark.populate(base=devices_and_programs)
def test_fifo_of_a_lower_layer_joins_its_ends(mnt: Path) -> None:
    with opened(mnt / "fifo", os.O_RDWR | os.O_NONBLOCK) as fd:
        os.write(fd, b"through")
        with opened(mnt / "fifo", os.O_RDONLY | os.O_NONBLOCK) as reader:
            assert os.read(reader, 10) == b"through"


def test_reading_an_upper_file_moves_an_old_atime(union: Union) -> None:
    """relatime, as mount(8) has it: an atime not newer than the mtime is moved by a read."""
    union.lower()
    mnt = union.mount()
    (mnt / "f").write_bytes(b"data")
    mtime = os.stat(mnt / "f").st_mtime_ns
    os.utime(mnt / "f", ns=(mtime - HOUR, mtime))
    union.remount()  # nothing of it in any cache
    assert os.stat(mnt / "f").st_atime_ns == mtime - HOUR
    assert (mnt / "f").read_bytes() == b"data"
    st = os.stat(mnt / "f")
    assert (st.st_atime_ns >= mtime, st.st_mtime_ns) == (True, mtime)


def test_reading_a_lower_file_copies_nothing_up(union: Union) -> None:
    base = union.lower()
    (base / "d").mkdir()
    (base / "d" / "f").write_bytes(b"data")
    mtime = os.stat(base / "d" / "f").st_mtime_ns
    os.utime(base / "d" / "f", ns=(mtime - HOUR, mtime))
    mnt = union.mount()
    assert (mnt / "d" / "f").read_bytes() == b"data"
    assert os.listdir(mnt / "d") == ["f"]
    assert os.listdir(union.upper) == []
    union.unmount()
    assert os.listdir(union.upper) == []
