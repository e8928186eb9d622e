"""Copy-up under people's eyes: readers, maps and small page writes go on over it, and no byte is lost or stale.

The model is a database in a lower layer (rpmdb, SQLite): opened by several processes, mapped by some, written in small
pages by others. fuse-overlayfs corrupts these without a word.
"""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from tests.posix.tools import opened, python
from tests.rigs import Mounted
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

PAGE = 4096
PAGES = 64
OLD = b"".join(bytes([i]) * PAGE for i in range(PAGES))


def a_database(d: Path) -> None:
    (d / "db").write_bytes(OLD)
    (d / "log").write_bytes(b"line 0\n")


def stored(mounted: Mounted, path: Path) -> Path:
    """The same file in the upper."""
    assert mounted.upper is not None
    return mounted.upper / path.relative_to(mounted.path)


@pytest.mark.populate(base=a_database)
def test_small_page_writes_through_several_descriptors_and_a_map(mnt: Path, mounted: Mounted) -> None:
    wanted = bytearray(OLD)
    dice = random.Random(475)
    with (
        opened(mnt / "db", os.O_RDWR) as first,
        opened(mnt / "db", os.O_RDWR) as second,
        mmap.mmap(first, len(OLD), mmap.MAP_SHARED) as shared,
    ):
        for step in range(300):
            at, data = dice.randrange(len(OLD) - 700), dice.randbytes(dice.choice((1, 16, 512, 700)))
            wanted[at : at + len(data)] = data
            if step % 3 == 0:
                shared[at : at + len(data)] = data
            else:
                assert os.pwrite((first, second)[step % 2], data, at) == len(data)
            look = dice.randrange(len(OLD) - 100)
            assert os.pread((second, first)[step % 2], 100, look) == wanted[look : look + 100]
            assert shared[look : look + 100] == wanted[look : look + 100]
            if step % 50 == 49:
                os.fsync(first)
                assert stored(mounted, mnt / "db").read_bytes() == wanted
    assert (mnt / "db").read_bytes() == wanted


def test_pages_written_by_two_processes_are_all_there_after_a_remount(union: Union) -> None:
    a_database(union.lower())
    mnt = union.mount()
    writer = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "for i in range(int(sys.argv[2]), 64, 2):\n"
        "    os.pwrite(fd, b'%04d' % i, i * 4096 + 100)\n"
        "os.fsync(fd)\n"
    )
    writers = [python(writer, str(mnt / "db"), str(i)) for i in range(2)]
    assert [process.communicate(timeout=20) and process.returncode for process in writers] == [0, 0]
    wanted = bytearray(OLD)
    for i in range(PAGES):
        wanted[i * PAGE + 100 : i * PAGE + 104] = b"%04d" % i
    assert (mnt / "db").read_bytes() == wanted
    union.remount()
    assert (mnt / "db").read_bytes() == wanted
    assert (union.layers[0] / "db").read_bytes() == OLD


@pytest.mark.populate(base=a_database)
def test_reader_that_holds_the_lower_file_gets_old_or_new_and_never_an_error(mnt: Path) -> None:
    with opened(mnt / "db", os.O_RDONLY) as reader:
        assert os.pread(reader, PAGE, 0) == OLD[:PAGE]
        with opened(mnt / "db", os.O_WRONLY) as writer:
            os.pwrite(writer, b"N" * PAGE, 0)
            os.pwrite(writer, b"N" * PAGE, 63 * PAGE)
        for page in (0, 63):
            assert os.pread(reader, PAGE, page * PAGE) in (OLD[page * PAGE : (page + 1) * PAGE], b"N" * PAGE)
        assert os.pread(reader, PAGE, PAGE) == OLD[PAGE : 2 * PAGE]
        assert os.fstat(reader).st_nlink == 1
    with opened(mnt / "db", os.O_RDONLY) as reader:
        assert os.pread(reader, PAGE, 0) == os.pread(reader, PAGE, 63 * PAGE) == b"N" * PAGE


@pytest.mark.populate(base=a_database)
def test_private_map_of_a_lower_file_survives_its_copy_up_and_removal(mnt: Path) -> None:
    """What a running program is: its text stays mapped while the package manager replaces it."""
    with opened(mnt / "db", os.O_RDONLY) as fd, mmap.mmap(fd, len(OLD), mmap.MAP_PRIVATE, mmap.PROT_READ) as text:
        assert text[:PAGE] == OLD[:PAGE]
        os.chmod(mnt / "db", 0o600)
        assert text[5 * PAGE : 6 * PAGE] == OLD[5 * PAGE : 6 * PAGE]
        os.unlink(mnt / "db")
        assert text[9 * PAGE : 10 * PAGE] == OLD[9 * PAGE : 10 * PAGE]


@pytest.mark.populate(base=a_database)
def test_shared_map_made_before_the_copy_up_by_another_descriptor(mnt: Path) -> None:
    """A writable map is a copy-up at open: another writer's bytes show in it, and its bytes show to readers."""
    with opened(mnt / "db", os.O_RDWR) as fd, mmap.mmap(fd, len(OLD), mmap.MAP_SHARED) as shared:
        with opened(mnt / "db", os.O_WRONLY) as other:
            os.pwrite(other, b"other", 10)
        assert shared[10:15] == b"other"
        shared[20:23] = b"map"
        shared.flush()
        with opened(mnt / "db", os.O_RDONLY) as reader:
            assert os.pread(reader, 13, 10) == b"other" + OLD[15:20] + b"map"


@pytest.mark.populate(base=a_database)
def test_truncate_and_growth_by_name_while_open(mnt: Path) -> None:
    with opened(mnt / "db", os.O_RDWR) as fd:
        os.truncate(mnt / "db", 10)
        assert os.fstat(fd).st_size == 10
        assert os.pread(fd, 100, 0) == OLD[:10]
        os.truncate(mnt / "db", 3 * PAGE)
        assert os.pread(fd, 3 * PAGE, 0) == OLD[:10] + bytes(3 * PAGE - 10)
        with open(mnt / "db", "ab") as f:
            f.write(b"appended")
        assert os.pread(fd, 100, 3 * PAGE) == b"appended"


@pytest.mark.populate(base=a_database)
def test_appenders_in_four_processes_race_for_the_copy_up(mnt: Path) -> None:
    code = (
        "import os, sys\n"
        "for i in range(25):\n"
        "    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "    os.write(fd, f'{sys.argv[2]} {i}\\n'.encode())\n"
        "    os.close(fd)\n"
    )
    processes = [python(code, str(mnt / "log"), str(i)) for i in range(4)]
    assert [process.communicate(timeout=20) and process.returncode for process in processes] == [0] * 4
    lines = (mnt / "log").read_text().splitlines()
    assert sorted(lines) == sorted(["line 0", *(f"{who} {i}" for who in range(4) for i in range(25))])


@pytest.mark.populate(base=a_database)
def test_attributes_change_before_data_is_copied(mnt: Path, mounted: Mounted) -> None:
    """chmod first, data later: whichever part a copy-up brings, the file is the same to everybody."""
    before = os.stat(mnt / "db")
    os.chmod(mnt / "db", 0o640)
    os.chown(mnt / "db", 3, 4)
    os.setxattr(mnt / "db", "user.note", b"kept")
    os.utime(mnt / "db", ns=(10**18 + 1, 10**18 + 2))
    after = os.stat(mnt / "db")
    assert (after.st_mode, after.st_uid, after.st_gid) == (0o100640, 3, 4)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, 10**18 + 2)
    assert (mnt / "db").read_bytes() == OLD
    assert os.getxattr(mnt / "db", "user.note") == b"kept"
    copied = os.stat(stored(mounted, mnt / "db"))
    assert (copied.st_mode, copied.st_uid, copied.st_size, copied.st_mtime_ns) == (0o100640, 3, len(OLD), 10**18 + 2)
