"""Finding libfuse 2 and fusepy, saying what is missing, and the options that libfuse is given."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.requirements import requires
from unionfs.errors import TransportUnavailable
from unionfs.linux import libfuse2
from unionfs.linux.libfuse2 import Request, load, package_hint
from unionfs.transport import MountOptions
from unionfs.transport.fusepy import _time, mount_arguments
from unionfs.vfs import ATTR_RECORD, NOW


@pytest.mark.parametrize(
    "os_release, command",
    [
        ('ID=debian\nVERSION_ID="12"', "apt-get install libfuse2"),
        ('ID=debian\nVERSION_ID="13"', "apt-get install libfuse2t64"),
        ("ID=debian\nVERSION_CODENAME=forky", "apt-get install libfuse2t64"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"', "apt-get install libfuse2"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"', "apt-get install libfuse2t64"),
        ("ID=fedora\nVERSION_ID=42", "dnf install fuse-libs"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install fuse-libs"),
        ("ID=arch", "pacman -S fuse2"),
        ("ID=alpine", "apk add fuse"),
        ("", "install libfuse 2 (Debian 12: libfuse2, newer: libfuse2t64)"),
        ("# a comment\nnonsense", "install libfuse 2 (Debian 12: libfuse2, newer: libfuse2t64)"),
    ],
)
def test_package_to_install(os_release: str, command: str) -> None:
    assert package_hint(os_release) == command


def test_missing_libfuse_names_the_package() -> None:
    with pytest.raises(TransportUnavailable, match=r"^libfuse 2 not found$") as caught:
        load("libfuse-that-is-not-there.so.2")
    assert caught.value.hint == package_hint(Path("/etc/os-release").read_text())


def test_missing_libfuse_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/does/not/exist.so")
    with pytest.raises(TransportUnavailable, match="libfuse 2 not found"):
        load()


def test_libfuse_3_is_refused() -> None:
    try:
        ctypes.CDLL("libfuse3.so.3")
    except OSError:
        pytest.skip("missing: libfuse3.so.3 (apt-get install fuse3)")
    with pytest.raises(TransportUnavailable, match=r"^libfuse3\.so\.3 is libfuse 3, not libfuse 2$") as caught:
        load("libfuse3.so.3")
    assert caught.value.hint


@requires("libfuse2")
def test_missing_fusepy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fuse", None)
    with pytest.raises(TransportUnavailable, match="fusepy is not installed") as caught:
        load()
    assert caught.value.hint == "pip install fusepy"


@requires("libfuse2")
def test_another_module_called_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fuse", types.ModuleType("fuse"))
    with pytest.raises(TransportUnavailable, match="not fusepy"):
        load()


@requires("libfuse")
def test_loading_searches_with_no_other_program_and_leaves_the_environment(tmp_path: Path) -> None:
    # Were ldconfig or gcc asked, as ctypes.util.find_library does, an empty PATH would find them missing.
    code = (
        "import os, subprocess; subprocess.Popen = None; from unionfs.linux import libfuse2\n"
        "before = dict(os.environ); module = libfuse2.load(); assert dict(os.environ) == before\n"
        "assert module.fuse_operations and module._libfuse._name == 'libfuse.so.2'"
    )
    project = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project, env={**os.environ, "PATH": str(tmp_path)})


@requires("libfuse")
def test_table_has_fallocate_and_the_flags() -> None:
    fuse = load()
    table = libfuse2._table_class(fuse)
    names = [field[0] for field in table._fields_]
    # <fuse.h> of 2.9: the order after ioctl, where fusepy ends.
    assert names[-6:] == ["ioctl", "poll", "write_buf", "read_buf", "flock", "fallocate"]
    assert names[:-5] == [field[0] for field in fuse.fuse_operations._fields_]


def test_attributes_are_read_in_the_form_that_file_systems_give_them() -> None:
    assert libfuse2.ATTR_RECORD.format == ATTR_RECORD.format


# options --------------------------------------------------------------------------------------------------------------
def test_arguments_for_root() -> None:
    words = mount_arguments(MountOptions(), euid=0)
    assert {"use_ino", "suid", "dev", "allow_other", "default_permissions", "attr_timeout=0"} <= set(words)
    assert "ro" not in words and "debug" not in words and "hard_remove" not in words


def test_arguments_for_a_user() -> None:
    words = mount_arguments(MountOptions(), euid=1000)
    assert {"suid", "dev", "allow_other"}.isdisjoint(words)
    assert "allow_other" in mount_arguments(MountOptions(allow_other=True), euid=1000)
    assert "allow_other" not in mount_arguments(MountOptions(allow_other=False), euid=0)


def test_attributes_are_cached_where_nothing_can_change() -> None:
    words = mount_arguments(MountOptions(read_only=True), euid=0)
    assert "ro" in words and "attr_timeout=1000000000" in words


def test_options_come_last_and_separators_are_escaped() -> None:
    options = MountOptions(
        fsname="a,b\\c", default_permissions=False, debug=True, extra=("nosuid", 'context="x:c1,c2"')
    )
    words = mount_arguments(options, euid=0)
    assert words[0] == "fsname=a\\,b\\\\c"
    assert words[-3:] == ["debug", "nosuid", 'context="x:c1\\,c2"']
    assert "default_permissions" not in words


def test_times() -> None:
    assert _time(5, (1 << 30) - 1) is NOW
    assert _time(5, (1 << 30) - 2) is None
    assert _time(1, 73_741_822) == 1_073_741_822  # which fusepy takes for UTIME_OMIT
    assert _time(-1, 999_999_999) == -1


# requests -------------------------------------------------------------------------------------------------------------
def test_request_in_one_line() -> None:
    assert str(Request(3, 7, 1, 42, b"")) == "GETATTR unique=7 node=1 pid=42"
    assert str(Request(99, 7, 1, 42, b"")).startswith("opcode 99 ")


def test_rename_target_in_a_request() -> None:
    body = (5).to_bytes(8, "little") + b"old\0new\xff\0"  # struct fuse_rename_in: newdir; then the two names
    assert Request(libfuse2.RENAME, 1, 1, 1, body).rename_target == b"new\xff"


def test_room_in_a_readdir_request() -> None:
    body = (9).to_bytes(8, "little") + (0).to_bytes(8, "little") + (4096).to_bytes(4, "little") + bytes(20)
    assert Request(libfuse2.READDIR, 1, 1, 1, body).read_size == 4096
