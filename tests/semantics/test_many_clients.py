"""Several processes at once in the same directories, as in a parallel build: no name lost, none twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.posix.tools import names, python
from tests.rigs import Mounted
from tests.semantics.unions import contents

pytestmark = [pytest.mark.needs("union")]

CLIENTS = 4


def together(code: str, *argv: str) -> list[str]:
    """Run `code` in four processes, each with its number as sys.argv[1]; what they print, once all have ended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for i in range(CLIENTS):
            processes.append(python(f"import errno, os, sys\nme = int(sys.argv[1])\n{code}", str(i), *argv))
        said = [process.communicate(timeout=25)[0].decode() for process in processes]
        assert [process.returncode for process in processes] == [0] * CLIENTS
        return said
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def a_tree(d: Path) -> None:
    (d / "lower").mkdir()
    for i in range(100):
        (d / "lower" / f"old{i}").write_bytes(b"%d" % i)


@pytest.mark.populate(base=a_tree)
@pytest.mark.parametrize("place", ["lower", "new"])
def test_creates_in_one_directory(mnt: Path, place: str) -> None:
    (mnt / "new").mkdir()
    before = names(mnt / place)
    together(
        "for i in range(50):\n    with open(f'{sys.argv[2]}/{me}-{i}', 'x') as f: f.write(f'{me} {i}')\n",
        str(mnt / place),
    )
    made = {f"{who}-{i}" for who in range(CLIENTS) for i in range(50)}
    assert sorted(os.listdir(mnt / place)) == sorted(before | made)
    for name in made:
        assert (mnt / place / name).read_text() == name.replace("-", " ")


@pytest.mark.populate(base=a_tree)
def test_each_name_is_created_by_exactly_one(mnt: Path) -> None:
    said = together(
        "won = 0\n"
        "for i in range(50):\n"
        "    try: os.close(os.open(f'{sys.argv[2]}/x{i}', os.O_CREAT | os.O_EXCL)); won += 1\n"
        "    except FileExistsError: pass\n"
        "print(won)\n",
        str(mnt / "lower"),
    )
    assert sum(map(int, said)) == 50


@pytest.mark.populate(base=a_tree)
def test_each_lower_name_is_unlinked_by_exactly_one(mnt: Path) -> None:
    said = together(
        "won = 0\n"
        "for i in range(100):\n"
        "    try: os.unlink(f'{sys.argv[2]}/old{i}'); won += 1\n"
        "    except FileNotFoundError: pass\n"
        "print(won)\n",
        str(mnt / "lower"),
    )
    assert sum(map(int, said)) == 100
    assert names(mnt / "lower") == set()


@pytest.mark.populate(base=a_tree)
def test_mkdir_p_of_the_same_paths(mnt: Path) -> None:
    together(
        "for i in range(15):\n"
        "    os.makedirs(f'{sys.argv[2]}/a{i}/b/c', exist_ok=True)\n"
        "    open(f'{sys.argv[2]}/a{i}/b/c/{me}', 'x').close()\n",
        str(mnt / "lower"),
    )
    for i in range(15):
        assert names(mnt / "lower" / f"a{i}" / "b" / "c") == {"0", "1", "2", "3"}


@pytest.mark.populate(base=a_tree)
def test_copy_up_of_one_file_by_all(mnt: Path, mounted: Mounted) -> None:
    together(
        "for i in range(100):\n"
        "    with open(f'{sys.argv[2]}/old{i}', 'r+b') as f:\n"
        "        f.seek(10 + me)\n"
        "        f.write(b'%d' % me)\n",
        str(mnt / "lower"),
    )
    wanted = {f"old{i}": (b"%d" % i).ljust(10, b"\0") + b"0123" for i in range(100)}
    assert contents(mnt / "lower") == dict(sorted(wanted.items()))
    assert mounted.upper is not None
    assert contents(mounted.upper / mnt.name / "lower") == dict(sorted(wanted.items()))


@pytest.mark.populate(base=a_tree)
def test_renames_to_and_fro_lose_nothing(mnt: Path) -> None:
    (mnt / "other").mkdir()
    together(
        "for i in range(me * 25, me * 25 + 25):\n"
        "    for a, b in (('lower', 'other'), ('other', 'lower'), ('lower', 'other')):\n"
        "        os.rename(f'{sys.argv[2]}/{a}/old{i}', f'{sys.argv[2]}/{b}/old{i}')\n"
        "        os.listdir(f'{sys.argv[2]}/{b}')\n",
        str(mnt),
    )
    assert names(mnt / "lower") == set()
    assert names(mnt / "other") == {f"old{i}" for i in range(100)}


@pytest.mark.unlike("union-fusepy", "libfuse 2 answers ENOENT to an open that a rename overtakes")
@pytest.mark.populate(base=a_tree)
def test_rename_over_one_target_leaves_one_whole_file(mnt: Path) -> None:
    """The write-then-rename of every careful program; readers meanwhile see one version or another, never none."""
    together(
        "place = sys.argv[2]\n"
        "for i in range(40):\n"
        "    if me == 0:\n"
        "        assert len(open(f'{place}/old7').read()) in (1, 1000), 'a half file'\n"
        "        continue\n"
        "    with open(f'{place}/tmp{me}', 'w') as f: f.write(str(me) * 1000)\n"
        "    os.rename(f'{place}/tmp{me}', f'{place}/old7')\n",
        str(mnt / "lower"),
    )
    assert (mnt / "lower" / "old7").read_text() in ("1" * 1000, "2" * 1000, "3" * 1000)
    assert len(names(mnt / "lower")) == 100
