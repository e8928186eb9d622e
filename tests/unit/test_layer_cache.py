"""The cache of layers: each tar read once, whatever it is compressed with; damage noticed; nothing left by failures."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.hostile_tars import archive, entry
from tests.requirements import requires
from tests.unit.as_user import run_as_nobody
from tests.unit.tar_rig import cache_of, names, tree_of
from unionfs.changeset.compression import compressor
from unionfs.changeset.tar_format import DIR, REG, Fields, member
from unionfs.errors import LayerError, TarError
from unionfs.image import cache_directory as cache_files
from unionfs.image.cache_directory import cache_directory
from unionfs.image.layer_cache import LayerCache
from unionfs.layers.tar_index import HEADER_SIZE, VERSION
from unionfs.linux import process

DATA = archive(entry(b"d/", DIR), entry(b"d/file", data=b"hello " * 1000), entry(b"other", data=b"x"))
DIFF_ID = "sha256:" + hashlib.sha256(DATA).hexdigest()
KEY = DIFF_ID.partition(":")[2]


def zstd(data: bytes) -> bytes:
    made = compressor("zstd")
    assert made is not None
    return made.feed(memoryview(data)) + made.finish()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "gzip in members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
}


def written(path: Path, data: bytes = DATA) -> bytes:
    path.write_bytes(data)
    return os.fsencode(path)


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# taking in ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_compressed_layer_is_unpacked_once(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    stored = compress(DATA)
    path, cache = written(tmp_path / "named-whatever", stored), cache_of(tmp_path)
    seen: list[int] = []
    added = cache.add(path, DIFF_ID, progress=seen.append)
    assert (added.diff_id, added.size) == (DIFF_ID, len(DATA))
    assert (added.digest, added.stored_size) == ("sha256:" + hashlib.sha256(stored).hexdigest(), len(stored))
    assert seen[-1] == len(stored) and seen == sorted(seen)
    again: list[int] = []
    assert cache.add(path, progress=again.append).diff_id == DIFF_ID
    assert again == []
    assert Path(os.fsdecode(cache.path(DIFF_ID))).read_bytes() == DATA
    layer = cache.open(DIFF_ID)
    assert layer.open(b"d/file").pread(6, 0) == b"hello "
    layer.close()


def test_a_plain_tar_is_read_where_it_lies(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    assert cache.add(path).diff_id == DIFF_ID
    assert cache.path(DIFF_ID) == path
    assert not (tmp_path / "cache/tars" / KEY).exists()
    assert cache.has(DIFF_ID)
    os.unlink(path)
    assert not cache.has(DIFF_ID)
    with pytest.raises(LayerError, match="not in the cache"):
        cache.open(DIFF_ID)


def test_a_stream_is_kept(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    assert cache.add(io.BytesIO(DATA)).diff_id == DIFF_ID
    assert cache.add(io.BytesIO(gzip.compress(DATA)), DIFF_ID).diff_id == DIFF_ID
    assert cache.verify(DIFF_ID) == []


def test_all_compressions_share_one_layer(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    for name, compress in COMPRESSIONS.items():
        cache.add(written(tmp_path / name, compress(DATA)))
    assert files(tmp_path / "cache/tars") == files(tmp_path / "cache/indexes") == [KEY]


def test_zeros_are_kept_as_holes(tmp_path: Path) -> None:
    data = archive(entry(b"zeros", data=bytes(8 << 20)))
    cache = cache_of(tmp_path)
    added = cache.add(io.BytesIO(gzip.compress(data)))
    st = os.stat(cache.path(added.diff_id))
    assert st.st_size == len(data) and st.st_blocks * 512 < 1 << 20
    layer = cache.open(added.diff_id)
    assert layer.open(b"zeros").pread(9 << 20, 0) == bytes(8 << 20)
    layer.close()


def test_another_layer_than_the_one_it_should_be_is_refused(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    for source in (written(tmp_path / "a.tar"), io.BytesIO(DATA), written(tmp_path / "a.gz", gzip.compress(DATA))):
        with pytest.raises(LayerError, match=DIFF_ID):
            cache.add(source, "sha256:" + 64 * "0")
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize("diff_id", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + 64 * "0", DIFF_ID.upper()])
def test_a_diff_id_is_checked(tmp_path: Path, diff_id: str) -> None:
    with pytest.raises(LayerError, match="diff_id"):
        cache_of(tmp_path).has(diff_id)


# failures -----------------------------------------------------------------------------------------------------------
def bomb() -> bytes:
    """10 GiB of zeros in 10 MB, by repeating a compressed piece of it: gzip members follow each other."""
    piece = gzip.compress(bytes(64 << 20))
    head = member(Fields(b"zeros", REG, 0o644, size=160 * (64 << 20)))
    return gzip.compress(head) + piece * 160 + gzip.compress(bytes(1024))


def test_a_decompression_bomb_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "bomb.tar.gz", bomb())
    with pytest.raises(LayerError, match="decompresses to more than 1024 MiB") as refused:
        cache_of(tmp_path).add(path)
    assert "UNIONFS_LAYER_LIMIT" in str(refused.value.hint)
    assert files(tmp_path / "cache") == []


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    stored = gzip.compress(DATA)
    with pytest.raises(LayerError, match="decompresses to more"):
        LayerCache(str(tmp_path / "cache"), limit=len(DATA) - 1).add(io.BytesIO(stored))
    assert LayerCache(str(tmp_path / "cache"), limit=len(DATA)).add(io.BytesIO(stored)).diff_id == DIFF_ID
    # What is not compressed takes the room that it has.
    LayerCache(str(tmp_path / "other"), limit=1).add(io.BytesIO(DATA))


def test_a_broken_tar_leaves_nothing(tmp_path: Path) -> None:
    for data in (DATA[:-1024], gzip.compress(DATA)[:-10], b"not a tar" * 100):
        with pytest.raises(TarError):
            cache_of(tmp_path).add(written(tmp_path / "a", data))
    assert files(tmp_path / "cache") == []


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    """The writer is killed while it reads from a pipe that never ends."""
    program = (
        "import sys; from unionfs.image.layer_cache import LayerCache;"
        f"print('begun', flush=True); LayerCache({str(tmp_path / 'cache')!r}).add(sys.stdin.buffer.raw)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin is not None and writer.stdout is not None
    writer.stdout.readline()
    writer.stdin.write(DATA[:4096])
    writer.stdin.flush()
    while not list((tmp_path / "cache/new").glob("*")):
        assert writer.poll() is None
    cache = cache_of(tmp_path)
    cache.add(io.BytesIO(DATA))
    assert len(files(tmp_path / "cache/new")) == 2, "the living writer's files are let alone"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    cache.add(io.BytesIO(DATA))
    assert files(tmp_path / "cache/new") == []


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(LayerError, match="not a directory of this user's own"):
        cache_of(tmp_path).add(io.BytesIO(DATA))


def test_what_the_cache_holds_is_for_its_user_alone(tmp_path: Path) -> None:
    umask = os.umask(0)  # as in a mount's daemon
    try:
        cache_of(tmp_path).add(io.BytesIO(gzip.compress(DATA)))
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*")} == {0}


# changed files ------------------------------------------------------------------------------------------------------
def test_a_changed_tar_is_noticed(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    layer = cache.open_file(path)
    assert names(layer) == [b"d", b"other"]
    layer.close()
    written(tmp_path / "a.tar", archive(entry(b"new")))
    layer = cache.open_file(path)
    assert names(layer) == [b"new"]
    layer.close()
    with pytest.raises(LayerError, match="another by now"):
        cache.open(DIFF_ID)


def test_a_changed_tar_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    cache.add(path)
    written(tmp_path / "a.tar", DATA.replace(b"other", b"OTHER").replace(b"x\0", b"x\0"))
    changed = archive(entry(b"d/", DIR), entry(b"d/file", data=b"HELLO " * 1000), entry(b"other", data=b"x"))
    assert len(changed) == len(DATA)
    written(tmp_path / "a.tar", changed)
    assert cache.add(path).diff_id != DIFF_ID


def test_a_tar_that_was_moved_by_its_touch_only_is_hashed_again(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    cache.add(path)
    os.utime(path, ns=(0, 0))
    layer = cache.open(DIFF_ID)
    assert names(layer) == [b"d", b"other"]
    layer.close()


# damage -------------------------------------------------------------------------------------------------------------
def damage(path: Path, at: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value)


@pytest.mark.parametrize("at", [0, 20, HEADER_SIZE + 3, HEADER_SIZE + 40, HEADER_SIZE + 120, -30, -3])
def test_a_damaged_index_is_made_anew(tmp_path: Path, at: int) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    layer = cache.open_file(path)
    wanted = tree_of(layer)
    layer.close()
    index = tmp_path / "cache/indexes" / KEY
    sound = index.read_bytes()
    damage(index, at % len(sound), b"\xaa\x55")
    assert cache.verify(DIFF_ID) == ["its index is damaged"]
    layer = cache.open_file(path)
    assert tree_of(layer) == wanted
    layer.close()
    assert index.read_bytes() == sound
    assert cache.verify(DIFF_ID) == []


def test_an_index_of_another_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    with monkeypatch.context() as older:
        older.setattr("unionfs.layers.tar_index.VERSION", VERSION - 1)
        cache.open_file(path).close()
    before = (tmp_path / "cache/indexes" / KEY).read_bytes()
    layer = cache_of(tmp_path).open_file(path)
    assert names(layer, b"d") == [b"file"]
    layer.close()
    assert (tmp_path / "cache/indexes" / KEY).read_bytes() != before and cache.verify(DIFF_ID) == []


def test_an_index_damaged_while_it_is_used_is_made_anew(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    layer = cache.open_file(path)
    damage(tmp_path / "cache/indexes" / KEY, HEADER_SIZE, b"\xff" * 100)
    assert names(layer, b"d") == [b"file"]
    layer.close()


def test_an_index_damaged_while_its_tar_is_gone_is_an_input_output_error(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    layer = cache.open_file(path)
    damage(tmp_path / "cache/indexes" / KEY, HEADER_SIZE, b"\xff" * 100)
    damage(tmp_path / "a.tar", 1024, b"\xff")
    with pytest.raises(OSError, match="Input/output error"):
        layer.scan(b"d")
    layer.close()


@pytest.mark.parametrize("size", [0, 10, HEADER_SIZE, HEADER_SIZE + 100])
def test_an_index_cut_short_is_made_anew(tmp_path: Path, size: int) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    cache.add(path)
    os.truncate(tmp_path / "cache/indexes" / KEY, size)
    layer = cache.open(DIFF_ID)
    assert names(layer) == [b"d", b"other"]
    layer.close()


def test_a_damaged_tar_is_found_by_verify(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    cache.add(io.BytesIO(gzip.compress(DATA)))
    damage(tmp_path / "cache/tars" / KEY, 1600, b"!")
    (fault,) = cache.verify(DIFF_ID)
    assert "its tar is damaged" in fault


def test_small_files_that_are_nonsense_are_as_none(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    cache.add(path)
    for name in files(tmp_path / "cache"):
        if not name.startswith("indexes"):
            (tmp_path / "cache" / name).write_bytes(b"\xff nonsense")
    assert not cache.has(DIFF_ID)
    assert cache.add(path).digest == DIFF_ID, "it was read again"
    assert cache.has(DIFF_ID)


def test_a_removed_layer_is_gone_and_its_tar_is_not(tmp_path: Path) -> None:
    path, cache = written(tmp_path / "a.tar"), cache_of(tmp_path)
    cache.add(path)
    cache.remove(DIFF_ID)
    cache.remove(DIFF_ID)
    assert files(tmp_path / "cache") == []
    assert Path(os.fsdecode(path)).exists()


# many at once -------------------------------------------------------------------------------------------------------
def test_several_at_once_make_the_same_layer(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", gzip.compress(DATA))
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait()
            layer = cache_of(tmp_path).open_file(path)
            assert names(layer) == [b"d", b"other"]
            layer.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files(tmp_path / "cache/new") == []
    assert cache_of(tmp_path).verify(DIFF_ID) == []


# where it is --------------------------------------------------------------------------------------------------------
def test_where_the_cache_is() -> None:
    assert cache_directory({"UNIONFS_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == b"/c"
    assert cache_directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == b"/x/unionfs"
    assert cache_directory({"XDG_CACHE_HOME": "relative", "HOME": "/h"}) == b"/h/.cache/unionfs"


@requires("root")
def test_without_privilege_owners_and_devices_are_shown(tmp_path: Path) -> None:
    data = archive(entry(b"null", b"3", rdev=os.makedev(1, 3)), entry(b"secret", data=b"s", mode=0, uid=1234))
    written(tmp_path / "a.tar", data)

    def look() -> None:
        layer = LayerCache(tempfile.mkdtemp()).open_file(str(tmp_path / "a.tar"))
        assert (layer.lstat(b"null").st_mode >> 12, layer.lstat(b"null").st_rdev) == (2, os.makedev(1, 3))
        assert (layer.lstat(b"secret").st_mode, layer.lstat(b"secret").st_uid) == (0o100000, 1234)
        assert layer.open(b"secret").pread(9, 0) == b"s"
        layer.close()

    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    run_as_nobody(look)


def test_a_writer_waits_for_who_sweeps_its_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer sweeps between the making of a new file and its lock: it has the lock, and removes the file."""
    swept: list[str] = []
    refused = threading.Event()
    real = process.flock_exclusive

    def lock(fd: int, blocking: bool = False) -> None:
        if not swept:
            path = os.readlink(f"/proc/self/fd/{fd}")
            swept.append(path)
            other = os.open(path, os.O_RDONLY)
            real(other)

            def sweep() -> None:
                # Until the writer stands in line ("-> FLOCK" of its inode), or has been sent away.
                inode = f":{os.fstat(other).st_ino} "
                while not refused.is_set():
                    lines = Path("/proc/locks").read_text().splitlines()
                    if any("->" in line and inode in line for line in lines):
                        break
                os.unlink(path)
                os.close(other)

            threading.Thread(target=sweep).start()
        try:
            real(fd, blocking)
        except BlockingIOError:
            refused.set()
            raise

    monkeypatch.setattr(cache_files, "flock_exclusive", lock)
    cache = cache_of(tmp_path)
    added = cache.add(io.BytesIO(gzip.compress(DATA)))
    assert (added.diff_id, cache.has(DIFF_ID), len(swept)) == (DIFF_ID, True, 1)
    assert not os.path.exists(swept[0])
