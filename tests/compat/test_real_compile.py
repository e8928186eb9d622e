"""gcc and make on sources that lie in a lower layer: the same programs as in a plain directory, and they run.

The linker writes by seeking to and fro and maps what it reads; make goes by times alone; what was built is run from
the mount and its shared library mapped by the loader; the program itself changes a file through a shared mapping, with
pages still dirty when it ends, and fills a file made by O_TMPFILE, which then gets a name.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.compat.real_mount import run
from tests.golden.trees import describe
from tests.posix.tools import expect
from tests.requirements import requires
from tests.semantics.unions import Union, copy_tree, same_text

pytestmark = [pytest.mark.needs("union"), pytest.mark.needs_root, requires("gcc", "make")]

PARTS = 20
#: What a whole build links or compiles: one object a part, main and one, the library, the program.
OUTPUTS = PARTS + 4
#: Times of the sources, long ago. One second apart.
OLD = 1_500_000_000

MAKEFILE = """
CFLAGS = -O1 -g -fPIC -frandom-seed=$@ -fdebug-prefix-map=$(CURDIR)=. -MMD
PARTS := $(sort $(wildcard src/part*.c))
OBJECTS := $(PARTS:src/%.c=build/%.o)

all: bin/program

bin/program: build/main.o lib/libparts.so lib/libone.a
	@mkdir -p bin
	$(CC) -o $@ build/main.o -Llib -lparts -lone -Wl,-rpath,'$$ORIGIN/../lib' -Wl,--build-id=none

lib/libparts.so: $(OBJECTS)
	@mkdir -p lib
	$(CC) -shared -o $@ $(OBJECTS) -Wl,--build-id=none

lib/libone.a: build/one.o
	@mkdir -p lib
	$(AR) rcsD $@ build/one.o

build/%.o: src/%.c
	@mkdir -p build
	$(CC) $(CFLAGS) -c -o $@ $<

-include $(wildcard build/*.d)

clean:
	rm -rf build bin lib

.PHONY: all clean
"""

MAIN = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "parts.h"

/* Add up the parts, and write the sum over the file's first bytes and into its last page, which is made for it. */
int main(int argc, char **argv)
{
    long sum = one();
    for (int i = 0; i < PARTS; i++) sum += parts[i]();
    printf("sum %ld\\n", sum);
    if (argc < 3) return 0;

    int fd = open(argv[1], O_RDWR);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) || ftruncate(fd, st.st_size + 4096)) return 1;
    char *map = mmap(NULL, st.st_size + 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return 2;
    close(fd);
    sprintf(map, "sum %ld", sum);
    memcpy(map + st.st_size, map, 64);
    for (long at = 4096; at < st.st_size; at += 8192) map[at] ^= 0x55;

    int tmp = open(argv[2], O_TMPFILE | O_RDWR, 0640);
    if (tmp < 0) {  /* EOPNOTSUPP: a mount through libfuse 2 */
        char name[4096];
        snprintf(name, sizeof name, "%s/made", argv[2]);
        tmp = open(name, O_CREAT | O_EXCL | O_RDWR, 0640);
        if (write(tmp, map, st.st_size + 4096) != st.st_size + 4096) return 3;
        return 0;
    }
    if (write(tmp, map, st.st_size + 4096) != st.st_size + 4096) return 4;
    char self[64], made[4096];
    snprintf(self, sizeof self, "/proc/self/fd/%d", tmp);
    snprintf(made, sizeof made, "%s/made", argv[2]);
    return linkat(AT_FDCWD, self, AT_FDCWD, made, AT_SYMLINK_FOLLOW) ? 5 : 0;  /* all pages still dirty and mapped */
}
"""


def project(place: Path) -> Path:
    """A Makefile, a header, a main program, a one-file archive and twenty parts of a shared library."""
    (place / "src").mkdir(parents=True)
    (place / "Makefile").write_text(MAKEFILE)
    names = ", ".join(f"part{i}" for i in range(PARTS))
    (place / "src" / "parts.h").write_text(
        f"#define PARTS {PARTS}\nlong one(void);\nextern long (*const parts[PARTS])(void);\n"
    )
    (place / "src" / "main.c").write_text(MAIN)
    (place / "src" / "one.c").write_text('#include "parts.h"\nlong one(void) { return 1; }\n')
    for i in range(PARTS):
        table = f"static const long table[] = {{ {', '.join(str(i * j % 97) for j in range(400))} }};\n"
        code = (
            f"long part{i}(void) {{ long s = 0; for (int j = 0; j < 400; j++) s += table[j] * (j % 7); return s; }}\n"
        )
        (place / "src" / f"part{i:02}.c").write_text('#include "parts.h"\n' + table + code)
    declared = "".join(f"long part{i}(void);\n" for i in range(PARTS))
    with open(place / "src" / "part00.c", "a") as f:
        f.write(f"{declared}long (*const parts[PARTS])(void) = {{ {names} }};\n")
    (place / "data").mkdir()
    (place / "data" / "file").write_bytes(bytes(range(251)) * 1500)
    run("find", str(place), "-exec", "touch", "-h", "-d", f"@{OLD}", "{}", "+")
    return place


def make(place: Path, *argv: str) -> list[str]:
    """What make ran, and what it said."""
    return run("make", "-C", str(place), "--no-print-directory", "-j2", *argv).splitlines()


def built(place: Path, *argv: str) -> list[str]:
    """The objects that a run of make has made."""
    return sorted(line.split(" -o ")[1].split()[0] for line in make(place, *argv) if " -o " in line)


def use(place: Path) -> str:
    """Run the program from where it was built."""
    return run(str(place / "bin" / "program"), str(place / "data" / "file"), str(place / "data"), timeout=20)


def tree(place: Path) -> list[str]:
    return describe(place, times=False)


@pytest.mark.engine
def test_same_programs_as_in_a_plain_directory_which_run_and_map_their_data(union: Union, plain: Path) -> None:
    base = union.lower()
    project(base / "project")
    kept = describe(base)
    there = copy_tree(base, plain) / "project"
    here = union.mount() / "project"
    for place in (here, there):
        assert len(built(place)) == OUTPUTS
    assert use(here) == use(there) != ""
    same_text(tree(there), tree(here), "plain", "union")
    union.remount()
    same_text(tree(there), tree(here), "plain", "after the remount")
    (here / "data" / "made").unlink()
    (there / "data" / "made").unlink()
    assert use(here) == use(there)  # the program and its library read from the mount's files anew
    same_text(tree(there), tree(here), "plain", "union, second run")
    assert describe(base) == kept


@pytest.mark.engine
def test_touch_of_one_source_builds_just_that_again(union: Union) -> None:
    base = union.lower()
    project(base / "project")
    make(base / "project")
    run("find", str(base), "-exec", "touch", "-h", "-d", f"@{OLD}", "{}", "+")
    kept = describe(base)
    here = union.mount() / "project"
    assert built(here) == []
    (here / "src" / "part07.c").touch()
    after_touch = ["bin/program", "build/part07.o", "lib/libparts.so"]
    assert built(here) == after_touch
    assert built(here) == []
    union.remount()
    assert built(here) == []  # the times that decide are kept
    with open(here / "src" / "part07.c", "a") as f:
        f.write("long unused;\n")
    assert built(here) == after_touch
    (here / "src" / "parts.h").touch()
    assert len(built(here)) == OUTPUTS
    assert describe(base) == kept


@pytest.mark.engine
def test_make_clean_hides_what_the_lower_has_built_and_leaves_it_there(union: Union) -> None:
    base = union.lower()
    project(base / "project")
    make(base / "project")
    kept = describe(base)
    here = union.mount() / "project"
    make(here, "clean")
    assert sorted(path.name for path in here.iterdir()) == ["Makefile", "data", "src"]
    union.remount()
    assert sorted(path.name for path in here.iterdir()) == ["Makefile", "data", "src"]
    assert len(built(here)) == OUTPUTS
    assert use(here).startswith("sum ")
    assert describe(base) == kept


@pytest.mark.engine
def test_program_that_runs_stays_whole_when_it_is_built_again(union: Union) -> None:
    """The linker removes its output before it writes: who runs the old program has its pages until it ends."""
    base = union.lower()
    source = '#include <stdio.h>\nint main(void) {{ puts("{0}"); fflush(stdout); getchar(); puts("{0}"); }}\n'
    (base / "p.c").write_text(source.format("old"))
    run("gcc", "-o", str(base / "p"), str(base / "p.c"))
    mnt = union.mount()
    with subprocess.Popen([mnt / "p"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"old\n"
            with expect(errno.ETXTBSY):
                os.close(os.open(mnt / "p", os.O_WRONLY))
            (mnt / "p.c").write_text(source.format("new"))
            run("gcc", "-o", str(mnt / "p"), str(mnt / "p.c"))
            assert run(str(mnt / "p"), stdin=b"\n") == "new\nnew\n"
            assert running.communicate(b"\n", timeout=20)[0] == b"old\n"
        finally:
            running.kill()
    union.remount()
    assert run(str(mnt / "p"), stdin=b"\n") == "new\nnew\n"
