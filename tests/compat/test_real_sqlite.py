"""SQLite on a database that lies in a lower layer: the same result as on a plain directory, also after kill -9.

Small page writes, locks, fsync, journals made and deleted, and a shared memory file for the write-ahead log's index:
all of what made people lose rpm databases on FUSE overlays.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.real_mount import run
from tests.requirements import need
from tests.rigs import Backing, Rig, Watchdog
from tests.semantics.unions import Union

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root]

ROWS = 1000

#: Arguments: database, journal mode, mmap_size. Deterministic. Says "open" and "committed N".
WRITER = """
import random, sqlite3, sys
path, journal, mmap_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 12
db = sqlite3.connect(path, timeout=20, isolation_level=None)
assert db.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
db.execute(f"PRAGMA mmap_size={mmap_size}")
db.execute("PRAGMA synchronous=FULL")
dice = random.Random(475)
print("open", flush=True)
for i in range(rounds):
    db.execute("BEGIN IMMEDIATE")
    for _ in range(20):
        key, data = dice.randrange(1500), dice.randbytes(dice.choice((10, 900, 6000)))
        db.execute("INSERT OR REPLACE INTO package VALUES (?, ?, ?)", (key, f"p{key}-{i}", data))
        db.execute("UPDATE package SET name = name || '!' WHERE id = ?", (dice.randrange(1000),))
        db.execute("DELETE FROM package WHERE id = ?", (dice.randrange(1000),))
    db.execute("UPDATE counter SET n = n + 1")
    if i % 6 == 5:
        db.execute("ROLLBACK")
    else:
        db.execute("COMMIT")
    if i % 5 == 4:
        db.execute("CREATE INDEX i%d ON package (name)" % i)
    print("committed", db.execute("SELECT n FROM counter").fetchone()[0], flush=True)
db.execute("VACUUM")
db.close()
"""

#: Arguments: database, mmap_size. Checks the whole database until its stdin ends; says how often.
READER = """
import select, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
db.execute(f"PRAGMA mmap_size={int(sys.argv[2])}")
count = 0
while True:
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.execute("SELECT sum(length(data)), max(name) FROM package").fetchone()
    count += 1
    if count == 1: print("reading", flush=True)
    if select.select([0], [], [], 0)[0]: break
"""


@functools.cache
def database_pages() -> bytes:
    """A database of some 300 pages."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE package (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
    db.execute("CREATE TABLE counter (n INTEGER)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.executemany(
        "INSERT INTO package VALUES (?, ?, ?)", ((i, f"package {i}", bytes([i % 256]) * 1000) for i in range(ROWS))
    )
    db.commit()
    return db.serialize()


@pytest.fixture
def union(rig: Rig, backing: Backing, watchdog: Watchdog) -> Iterator[Union]:
    made = Union(rig, backing.directory(f"{rig.name}-sqlite"), watchdog, 60.0)
    base = made.lower()
    (base / "var").mkdir()
    (base / "var" / "packages.db").write_bytes(database_pages())
    yield made
    made.close()


def start(code: str, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", code, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens, the process is gone afterwards."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def write(path: Path, journal: str, mmap_size: int) -> bytes:
    with ended(start(WRITER, str(path), journal, str(mmap_size))) as process:
        said, _ = process.communicate(timeout=50)
        assert process.returncode == 0
    return said


def dump(path: Path) -> list[str]:
    """The whole content as SQL, read by another process. AssertionError if the database is damaged."""
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=20)\n"
        "assert db.execute('PRAGMA integrity_check').fetchall() == [('ok',)]\n"
        "sys.stdout.write('\\n'.join(db.iterdump()))\n"
    )
    return run(sys.executable, "-S", "-E", "-c", code, str(path)).splitlines()


MMAP = 1 << 28


@pytest.mark.parametrize(
    ("journal", "mmap_size"),
    [
        ("wal", MMAP), ("delete", MMAP), ("truncate", 0),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in (("wal", 0), ("delete", 0), ("persist", MMAP))),
    ],
)  # fmt: skip
def test_same_run_gives_the_same_database_as_on_a_plain_directory(
    union: Union, tmp_path: Path, journal: str, mmap_size: int
) -> None:
    plain = tmp_path / "packages.db"
    shutil.copy(union.layers[0] / "var" / "packages.db", plain)
    mnt = union.mount()
    db = mnt / "var" / "packages.db"
    with ended(start(READER, str(db), str(mmap_size))) as reader:  # it has the lower file open, and keeps it
        assert reader.stdout is not None and reader.stdin is not None
        assert reader.stdout.readline() == b"reading\n"
        said = write(db, journal, mmap_size)
        reader.communicate(b"\n", timeout=20)
        assert reader.returncode == 0
    assert said == write(plain, journal, mmap_size)
    wanted = dump(plain)
    assert dump(db) == wanted
    assert {path.name for path in db.parent.iterdir()} == {path.name for path in tmp_path.iterdir()}
    union.remount()
    assert dump(db) == wanted
    assert (union.layers[0] / "var" / "packages.db").read_bytes() == database_pages()


@pytest.mark.parametrize(("journal", "mmap_size"), [("wal", MMAP), ("delete", 0)])
def test_database_is_whole_after_kill_9_in_the_middle(union: Union, journal: str, mmap_size: int) -> None:
    mnt = union.mount()
    db = mnt / "var" / "packages.db"
    for lives in (3, 7):
        with ended(start(WRITER, str(db), journal, str(mmap_size), "1000")) as writer:
            assert writer.stdout is not None
            for _ in range(lives):
                last = writer.stdout.readline()
            writer.kill()
            writer.wait(20)
            # What it may have said after that, before the signal came.
            last = ([last, *writer.stdout.readlines()])[-1]
        committed = int(last.split()[1])
        union.remount()
        content = dump(db)
        (counted,) = (line for line in content if line.startswith('INSERT INTO "counter"'))
        assert int(counted.split("(")[1].split(")")[0]) in (committed, committed + 1)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_two_writers_and_the_shell_of_sqlite(union: Union, journal: str) -> None:
    need("sqlite3")
    mnt = union.mount()
    db = mnt / "var" / "packages.db"
    run("sqlite3", str(db), f"PRAGMA journal_mode={journal}; CREATE TABLE log (who, i);")
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "for i in range(40):\n"
        "    db.execute('BEGIN IMMEDIATE')\n"
        "    db.execute('INSERT INTO log VALUES (?, ?)', (sys.argv[2], i))\n"
        "    db.execute('UPDATE counter SET n = n + 1')\n"
        "    db.execute('COMMIT')\n"
    )
    with ended(start(code, str(db), "one")) as one, ended(start(code, str(db), "two")) as two:
        assert [process.communicate(timeout=40) and process.returncode for process in (one, two)] == [0, 0]
    shell = [
        "sqlite3",
        str(db),
        "PRAGMA integrity_check; SELECT n FROM counter; SELECT count(DISTINCT who || i) FROM log;",
    ]
    assert run(*shell).split() == ["ok", "80", "80"]
    union.remount()
    assert run(*shell).split() == ["ok", "80", "80"]
