"""The union's own attributes: on which kinds of objects they mean something, and which values they may have.

`fault(stored, key, value)` judges one attribute and answers with a `Fault` or None. `harmless`: whoever reads the
attribute ignores it, or can make nothing of it, so that it goes without loss. Names it does not know are not judged:
kernels to come may write them.

References: fs/overlayfs/{overlayfs.h, util.c, namei.c, copy_up.c}; `unionfs.*` are ours (overlay/stack.py).
"""

from __future__ import annotations

import re
import stat
from typing import NamedTuple

from unionfs.layers import whiteout
from unionfs.upkeep.stored import Stored

#: Set on a tree's root while `convert` changes the namespace of its attributes.
CONVERTING = b"unionfs.converting"
#: Set there, and removed at once, to find out whether attributes can be set.
PROBE = b"unionfs.probe"

_FB_SIZE, _FB_MAGIC, _FB_VERSION = 21, 0xFB, 0  # OVL_FH_MAGIC, OVL_FH_VERSION
_METACOPY_HEADER = 4
_NLINK = re.compile(rb"[UL][+-][0-9]{1,10}\Z")
_NUMBER = re.compile(rb"[0-9]{1,20}\+?\Z")
_SLOT = re.compile(rb"[0-9]{1,5}\Z")

_DIRECTORY_ONLY = frozenset((b"opaque", b"impure", b"whiteouts", b"uuid", b"unionfs.alone"))
_EMPTY_FILE_ONLY = frozenset((b"whiteout", b"unionfs.whiteout"))
_NOT_ON_DIRECTORIES = frozenset((b"nlink", b"unionfs.number"))


class Fault(NamedTuple):
    rule: str
    message: str
    harmless: bool


def fault(stored: Stored, key: bytes, value: bytes) -> Fault | None:
    return _wrong_kind(stored, key) or _wrong_value(stored, key, value)


def _wrong_kind(stored: Stored, key: bytes) -> Fault | None:
    mode = stored.st.st_mode
    wanted = None
    if key in _DIRECTORY_ONLY and not stored.is_dir:
        wanted = "a directory"
    elif key in _EMPTY_FILE_ONLY and not stored.is_empty_file:
        wanted = "an empty regular file"
    elif key in _NOT_ON_DIRECTORIES and stored.is_dir:
        wanted = "what is no directory"
    elif key == b"redirect" and not (stored.is_dir or stat.S_ISREG(mode)):
        wanted = "a directory or a regular file"
    elif key == b"metacopy" and not stat.S_ISREG(mode):
        wanted = "a regular file"
    if wanted is None:
        return None
    return Fault("mark-on-wrong-kind", f"overlay.{key.decode()} is for {wanted}", True)


def _wrong_value(stored: Stored, key: bytes, value: bytes) -> Fault | None:
    if key == b"opaque" and value not in (b"y", b"x"):
        # Some readers compare the first byte, others the whole (ovl_get_dir_xattr_val()): they disagree about these.
        return Fault("bad-opaque", f"overlay.opaque is {_show(value)}, neither y nor x", value[:1] not in (b"y", b"x"))
    if key == b"redirect" and whiteout.redirect_target(value) is None:
        harmless = stored.own(b"metacopy") is None  # else the data is elsewhere
        return Fault("bad-redirect", f"overlay.redirect {_show(value)} is no path", harmless)
    if key == b"origin" and not is_origin(value):
        return Fault("bad-origin", "overlay.origin holds no file handle", True)
    if key == b"nlink" and not _NLINK.match(value):
        return Fault("bad-nlink", f"overlay.nlink {_show(value)} is no link count", True)
    if key == b"metacopy" and not _is_metacopy(value):
        return Fault("bad-metacopy", "overlay.metacopy is malformed, so the file's data cannot be found", False)
    if key == b"uuid" and len(value) != 16:
        return Fault("bad-uuid", "overlay.uuid is not 16 bytes long", True)
    if key == b"unionfs.slot" and not _SLOT.match(value):
        return Fault("bad-slot", f"overlay.unionfs.slot {_show(value)} is no number", True)
    if key == b"unionfs.number" and not _NUMBER.match(value):
        return Fault("bad-number", f"overlay.unionfs.number {_show(value)} is no inode number", True)
    if key == PROBE:
        return Fault("probe", "left by an interrupted conversion", True)
    if key == CONVERTING:
        return Fault("unfinished-conversion", "a change of the attributes' namespace was interrupted", False)
    return None


def is_origin(value: bytes) -> bool:
    """Empty (origin unknown), or a file handle that some machine can decode (ovl_check_fb_len())."""
    if not value:
        return True
    if len(value) < _FB_SIZE:
        return False
    version, magic, length = value[:3]
    # A later version, flags of one, or the other byte order are foreign, not malformed.
    return magic == _FB_MAGIC and (version > _FB_VERSION or length == len(value))


def _is_metacopy(value: bytes) -> bool:
    """ovl_check_metacopy_xattr(): empty, or a header of 4 bytes whose second is the length."""
    return not value or (len(value) >= _METACOPY_HEADER and value[:2] == bytes((0, len(value) & 0xFF)))


def relative_count(value: bytes | None) -> tuple[bytes, int] | None:
    """(b"U" or b"L", difference) of an overlay.nlink value, None where there is none."""
    if value is None or not _NLINK.match(value):
        return None
    return value[:1], int(value[1:])


def _show(value: bytes) -> str:
    text = value[:40].decode("ascii", "backslashreplace")
    return f'"{text}"' + ("…" if len(value) > 40 else "")
