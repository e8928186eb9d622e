"""`-o metacopy=on` on real mounts: what `chown -R` costs, and what who reads and writes meanwhile sees."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.compat.real_mount import RealStack, each_transport
from tests.unit.cli_runner import program, refused

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

ON = ("-o", "metacopy=on")
FILES = 24
SIZE = 1 << 20


def fill(stack: RealStack) -> dict[str, bytes]:
    """Files of a MiB and of a few bytes, in three directories of a layer."""
    layer, made = stack.lower(), {}
    for number in range(FILES):
        for size in (SIZE, 10):
            name = f"d{number % 3}/{size}-{number}"
            made[name] = os.urandom(size)
            (layer / name).parent.mkdir(exist_ok=True)
            (layer / name).write_bytes(made[name])
    return made


def statistics(stack: RealStack) -> dict[str, int]:
    (mount,) = [one for one in json.loads(stack.unionfs("mounts", "--json")) if one["mountpoint"] == str(stack.mnt)]
    found: dict[str, int] = mount["statistics"]
    return found


def bytes_in(tree: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in tree.rglob("*"))


@each_transport()
def test_chown_and_chmod_of_a_whole_tree_copy_no_data(stack: RealStack) -> None:
    made = fill(stack)
    with stack.mounted(*ON) as mnt:
        subprocess.run(["chown", "-R", "5:6", mnt], check=True)
        subprocess.run(["chmod", "-R", "g+w", mnt], check=True)
        counted = statistics(stack)
        assert (counted["copy_ups"], counted["copy_up_bytes"]) == (2 * FILES + 3, 0)
        # A block for each directory, and for attributes that do not fit the inode.
        assert bytes_in(stack.upper) <= (2 * FILES + 3) * 4096
        for name, data in made.items():
            st = os.stat(mnt / name)
            assert (st.st_uid, st.st_gid, st.st_size, bool(st.st_mode & 0o020)) == (5, 6, len(data), True)
            assert (mnt / name).read_bytes() == data
        assert statistics(stack)["copy_up_bytes"] == 0
        name = f"d0/{SIZE}-0"
        with open(mnt / name, "ab") as file:
            file.write(b"tail")
        assert statistics(stack)["copy_up_bytes"] == SIZE
    with stack.mounted() as mnt:
        assert (mnt / name).read_bytes() == made.pop(name) + b"tail"
        assert all((mnt / one).read_bytes() == data for one, data in made.items())


@each_transport()
def test_who_has_a_metacopy_open_while_its_data_comes_up(stack: RealStack) -> None:
    made = fill(stack)
    name = f"d1/{SIZE}-1"
    data = made[name]
    with stack.mounted(*ON) as mnt, open(mnt / name, "rb", buffering=0) as before:
        assert before.read(5) == data[:5]
        os.chown(mnt / name, 5, 5)
        with open(mnt / name, "rb", buffering=0) as between:
            assert between.read(5) == data[:5] and os.fstat(before.fileno()).st_uid == 5
            os.fsync(between.fileno())
            with open(mnt / name, "r+b", buffering=0) as writer:
                writer.write(b"new")
                assert (mnt / name).read_bytes() == b"new" + data[3:]
                os.lseek(between.fileno(), 0, os.SEEK_SET)
                # In passthrough a descriptor keeps the file it was opened on.
                assert between.read(4) in (data[:4], b"new" + data[3:4])
            os.rename(mnt / name, mnt / "moved")
        assert os.fstat(before.fileno()).st_nlink == 1
        assert (mnt / "moved").read_bytes() == b"new" + data[3:]
    assert (stack.layers[0] / name).read_bytes() == data


def test_the_mount_program_takes_the_option(tmp_path: Path) -> None:
    layer, upper, work, mnt = (tmp_path / name for name in ("layer", "upper", "work", "mnt"))
    for path in (layer, upper, work, mnt):
        path.mkdir()
    (layer / "file").write_bytes(b"x" * SIZE)
    options = f"lowerdir={layer},upperdir={upper},workdir={work},metacopy=on"
    assert program("-o", options, mnt, module="unionfs.api.mount_helper").status == 0
    try:
        os.chmod(mnt / "file", 0o600)
        assert os.getxattr(upper / "file", "trusted.overlay.metacopy") == b""
    finally:
        assert program("umount", mnt).status == 0
    ran = program("mount", "-l", layer, "-u", upper, "-w", work, "-o", "metacopy=maybe", mnt)
    refused(ran, 2, "metacopy=maybe: not on or off", "metacopy=on or metacopy=off")
