"""Directory trees as text: what golden files hold, and how tests compare two trees.

One line an object, in order of path components, percent-encoded fields separated by spaces:

    dir     0755 0:0 1500000000000000000 etc
    file    0644 0:0 1500000000000000000 etc/motd hello%0A user.note=hi
    link    etc/motd2 etc/motd                                           another name of the inode named second
    symlink 0777 0:0 1500000000000000000 etc/m motd
    char    0666 0:0 1500000000000000000 dev/null 1:3                    also block; fifo and socket have no sixth field

The fields: kind, mode, owner, mtime in nanoseconds, path ("." the root), what is in it ("-" nothing), xattrs. Contents
above 80 bytes are described by their digest and size, and cannot be built.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

_KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_LONGEST = 80
#: Of overlay file systems themselves, and of the machine.
_HIDDEN = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"security.selinux")


def describe(root: Path | str | bytes, *, times: bool = True) -> list[str]:
    """The tree below `root` as lines. `times` False leaves mtimes out ("-")."""
    first_names: dict[tuple[int, int], bytes] = {}
    return [_line(os.fsencode(root), path, first_names, times) for path in walk(os.fsencode(root))]


def walk(root: bytes) -> list[bytes]:
    """All paths below `root` (b"" itself first), by components."""
    found = [b""]
    for directory, dirs, files in os.walk(root):
        base = directory[len(root) :].lstrip(b"/")
        found += [os.path.join(base, name) for name in dirs + files]
    return sorted(found, key=lambda path: path.split(b"/") if path else [])


def _line(root: bytes, path: bytes, first_names: dict[tuple[int, int], bytes], times: bool) -> str:
    full = os.path.join(root, path) if path else root
    st = os.lstat(full)
    if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
        first = first_names.setdefault((st.st_dev, st.st_ino), path)
        if first != path:
            return f"link {_quote(path)} {_quote(first)}"
    kind = _KINDS[stat.S_IFMT(st.st_mode)]
    mtime = str(st.st_mtime_ns) if times else "-"
    fields = [kind, f"{stat.S_IMODE(st.st_mode):04o}", f"{st.st_uid}:{st.st_gid}", mtime, _quote(path or b".")]
    if kind == "file":
        fields.append(_content(full, st.st_size))
    elif kind == "symlink":
        fields.append(_quote(os.readlink(full)))
    elif kind in ("char", "block"):
        fields.append(f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}")
    for name in sorted(os.fsencode(n) for n in os.listxattr(full, follow_symlinks=False)):
        if not name.startswith(_HIDDEN):
            fields.append(f"{_quote(name)}={_quote(os.getxattr(full, name, follow_symlinks=False))}")
    return " ".join(fields)


def _content(path: bytes, size: int) -> str:
    if size <= _LONGEST:
        with open(path, "rb") as f:
            return _quote(f.read()) or "-"
    with open(path, "rb") as f:
        return f"sha256:{hashlib.file_digest(f, 'sha256').hexdigest()}:{size}"


def _quote(raw: bytes) -> str:
    return quote_from_bytes(raw, safe="/.,:-_")


def build(root: Path, lines: list[str]) -> None:
    """Make the tree in the existing directory `root`. Inverse of `describe`."""
    base = os.fsencode(root)
    times: list[tuple[bytes, int]] = []
    for line in lines:
        kind, *fields = line.split()
        if kind == "link":
            name, target = (os.path.join(base, unquote_to_bytes(field)) for field in fields)
            os.link(target, name, follow_symlinks=False)
            continue
        mode, owner, mtime, path, *rest = fields
        full = os.path.join(base, unquote_to_bytes(path))
        detail = b"" if kind in ("dir", "fifo", "socket") else unquote_to_bytes(rest.pop(0))
        _make(kind, full, b"" if detail == b"-" else detail)
        _adorn(kind, full, owner, mode, rest)
        times.append((full, int(mtime)))
    for full, ns in reversed(times):
        os.utime(full, ns=(ns, ns), follow_symlinks=False)


def _make(kind: str, path: bytes, detail: bytes) -> None:
    if kind == "dir":
        os.makedirs(path, exist_ok=True)
    elif kind == "file":
        with open(path, "xb") as f:
            f.write(detail)
    elif kind == "symlink":
        os.symlink(detail, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o755)
    else:
        major, minor = detail.split(b":")
        os.mknod(path, stat.S_IFCHR if kind == "char" else stat.S_IFBLK, os.makedev(int(major), int(minor)))


def _adorn(kind: str, path: bytes, owner: str, mode: str, xattrs: list[str]) -> None:
    uid, gid = owner.split(":")
    os.chown(path, int(uid), int(gid), follow_symlinks=False)
    for xattr in xattrs:
        name, value = xattr.split("=")
        os.setxattr(path, unquote_to_bytes(name), unquote_to_bytes(value), follow_symlinks=False)
    if kind != "symlink":
        os.chmod(path, int(mode, 8))
