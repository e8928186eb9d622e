"""diff, commit, check and convert on uppers that anybody may have made: a result, or one of our errors; and an end.

What is read through the engine is in test_hostile_layers.py and test_hostile_xattrs.py; here it is read past it too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.canary import Canary
from tests.requirements import requires
from tests.rigs import python_path
from tests.unit.cli_runner import process_of, program
from tests.unit.test_hostile_layers import ODD_NAMES
from tests.unit.test_hostile_xattrs import NAMES, OBJECTS, layers, place, values
from unionfs import api
from unionfs.errors import UnionFSError
from unionfs.upkeep.encoding import Encoding

pytestmark = requires("root")  # devices and trusted.*

KINDS = ("file", "data", "directory", "symlink", "fifo", "whiteout")
odd_objects = st.tuples(st.sampled_from(["", "d", "d/e"]), st.sampled_from((*ODD_NAMES, ".wh.f", ".wh.d", ".wh.new")),
                        st.sampled_from(KINDS))  # fmt: skip
odd_marks = st.tuples(st.sampled_from(["trusted", "user"]), st.sampled_from(NAMES), values, st.sampled_from(OBJECTS))


def make(path: Path, kind: str, canary: Canary) -> None:
    match kind:
        case "file" | "data":
            with path.open("x") as file:  # not into a device or fifo that was made before
                file.write("" if kind == "file" else "data")
        case "directory":
            path.mkdir()
            (path / "below").write_text("")
        case "symlink":
            path.symlink_to(canary.root / "dir")
        case "fifo":
            os.mkfifo(path)
        case _:
            os.mknod(path, stat.S_IFCHR, 0)


def refused(command: Callable[[], object]) -> None:
    with contextlib.suppress(OSError, UnionFSError):
        command()


@settings(max_examples=40, deadline=None)
@given(st.lists(odd_objects, max_size=4), st.lists(odd_marks, max_size=4), st.booleans())
def test_any_upper(
    objects: list[tuple[str, str, str]], marks: list[tuple[str, str, bytes, str]], aufs: bool
) -> None:  # fmt: skip
    with place() as (base, canary):
        lowers, upper, work = layers(base), base / "upper", base / "work"
        canary.expect("layer.tar", "copy*")
        canary.bait(upper)
        if aufs:
            (upper / ".wh..wh.aufs").write_text("")
        for directory, name, kind in objects:
            with contextlib.suppress(FileExistsError):
                make(upper / directory / name, kind, canary)
        for namespace, name, value, there in marks:
            with contextlib.suppress(OSError):
                os.setxattr(upper / there, f"{namespace}.overlay.{name}", value)
        for encoding in get_args(Encoding):
            copy = base / f"copy-{encoding}"
            subprocess.run(["cp", "-a", str(upper), str(copy)], check=True)
            refused(lambda copy=copy, encoding=encoding: api.convert(copy, encoding))  # type: ignore[misc]
            refused(lambda copy=copy: api.check(copy, repair=True))  # type: ignore[misc]
        for repair in (False, True):
            refused(lambda: api.diff(layers=lowers, upper=upper, work=work))
            refused(lambda: api.commit(layers=lowers, upper=upper, work=work, output=base / "layer.tar"))
            refused(lambda repair=repair: api.check(upper, layers=lowers, work=work, repair=repair))  # type: ignore[misc]


ODD_NAME = "x\nerror: forged\x1b[2J\x9b\udcff"


def test_message_about_an_odd_name_is_one_line(tmp_path: Path) -> None:
    """Nor does it speak to the terminal. Bytes that are not UTF-8 stay what they are."""
    (tmp_path / "upper" / f".wh.{ODD_NAME}").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    ran = program("commit", "-l", tmp_path / "base", "-u", tmp_path / "upper", "-o", tmp_path / "layer.tar")
    shown = "x\\x0aerror: forged\\x1b[2J\\x9b\udcff"
    assert ran.errors == [
        f"error: /.wh.{shown}: a layer tar cannot hold a name that begins with .wh.",
        "hint: rename it",
    ]
    ran = program("-o", f"lowerdir={tmp_path}/{ODD_NAME}", str(tmp_path), module="unionfs.api.mount_helper")
    assert ran.status == 1 and len(ran.errors) == 2 and "x\\x0aerror" in ran.errors[0], ran
    assert not any(line.startswith("error") for line in ran.errors)


def test_names_are_written_as_they_are_but_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "x\x1b[2J").write_text("")
    (tmp_path / "base").mkdir()
    arguments = ("diff", "-l", str(tmp_path / "base"), "-u", str(tmp_path / "upper"))
    assert program(*arguments).out == b"A /x\x1b[2J\n"
    reader, terminal = os.openpty()
    environment = {**os.environ, "PYTHONPATH": python_path()}
    subprocess.run([*process_of(), *arguments], stdout=terminal, env=environment, check=True, timeout=60)
    os.close(terminal)
    assert os.read(reader, 4096) == b"A /x\\x1b[2J\r\n"
    os.close(reader)
