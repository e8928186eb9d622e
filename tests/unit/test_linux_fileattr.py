"""Inode flags on the file system itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.tools import expect, opened
from tests.requirements import requires
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.mapped import IdMaps, MappedLayer, MappedUpper
from unionfs.layers.upper import WritableDirectory
from unionfs.linux import fileattr
from unionfs.vfs import LONG_FLAGS, SHORT_FLAGS, FlagsForm

_NODUMP = {SHORT_FLAGS: 0x40, LONG_FLAGS: 0x80}
_IMMUTABLE = {SHORT_FLAGS: 0x10, LONG_FLAGS: 0x08}
forms = pytest.mark.parametrize("form", [SHORT_FLAGS, LONG_FLAGS], ids=["short", "long"])


@forms
def test_what_is_set_is_got(tmp_path: Path, form: FlagsForm) -> None:
    (tmp_path / "f").touch()
    with opened(tmp_path / "f", os.O_RDONLY) as fd:
        before = fileattr.get(fd, form.get, form.size)
        assert len(before) == form.size
        fileattr.set(fd, form.set, form.with_flags(before, form.flags(before) | _NODUMP[form]))
        for other in _NODUMP:
            assert other.flags(fileattr.get(fd, other.get, other.size)) & _NODUMP[other]


@requires("root")
@forms
def test_a_layer_keeps_what_protects_a_file(tmp_path: Path, form: FlagsForm) -> None:
    (tmp_path / "d").mkdir()
    layer = MappedUpper(WritableDirectory(str(tmp_path)), IdMaps())
    value = layer.fileattr(b"d", form)
    layer.set_fileattr(b"d", form, form.with_flags(value, _NODUMP[form] | _IMMUTABLE[form]))
    assert form.flags(layer.fileattr(b"d", form)) & (_NODUMP[form] | _IMMUTABLE[form]) == _NODUMP[form]
    layer.close()


def test_links_and_special_files_are_not_opened(tmp_path: Path) -> None:
    os.symlink("d", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    layer = MappedLayer(DirectoryLayer(str(tmp_path)), IdMaps())
    for name, number in ((b"link", errno.ELOOP), (b"fifo", errno.ENXIO)):
        with expect(number):
            layer.fileattr(name, SHORT_FLAGS)
    layer.close()
