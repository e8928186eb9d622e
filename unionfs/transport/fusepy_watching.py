"""The operations of libfuse while somebody watches: each is told with its answer.

What a path API cannot tell: nodes (but of open files), which requests the kernel sent (one LOOKUP may be several
operations, and libfuse asks for attributes where the kernel only looked a name up), and what is answered from its own
cache of paths. A rename by which libfuse moves an open file out of the way is told as what it does: an unlink, or
nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final

from unionfs.linux import libfuse2
from unionfs.transport.fusepy import Adapter
from unionfs.vfs import Answered, Asked, Caller

#: Operations on a handle: where in the arguments it is, and what the others are called.
_HANDLES: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "read": (3, ("", "size", "offset")),
    "write": (3, ("", "", "offset")),
    "flush": (1, ()),
    "release": (1, ()),
    "fsync": (2, ("", "datasync")),
    "fallocate": (4, ("", "mode", "offset", "length")),
    "readdir": (1, ("", "", "offset")),
    "releasedir": (1, ()),
    "fsyncdir": (2, ("", "datasync")),
}
_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "mknod": ("mode", "rdev"),
    "mkdir": ("mode",),
    "create": ("mode",),
}


class WatchedAdapter(Adapter):
    """What an `Adapter` is while it is watched."""

    def __call__(self, name: str, *args: Any) -> Any:
        given = [a.encode("latin-1") if isinstance(a, str) else a for a in args]
        asked = self._asked(name, given)
        if asked is None:
            return super().__call__(name, *args)
        watcher = self.watcher
        token = watcher.asked(asked)
        try:
            result = super().__call__(name, *args)
        except OSError as error:
            watcher.answered(token, Answered(error.errno or errno.EIO))
            raise
        except BaseException:
            watcher.answered(token, Answered(errno.EIO))
            raise
        watcher.answered(token, _answered(name, given, result))
        return result

    def _asked(self, name: str, given: Sequence[Any]) -> Asked | None:
        """None for what does nothing."""
        if name in _HANDLES:
            return self._asked_of_handle(name, given)
        path: bytes | None = given[0] if given else b"/"
        if path is None:
            return self._asked_of_open(name, given)
        if name == "unlink" and self.is_hidden(path):
            return None
        if name == "rename" and self.hides(path, given[1]):
            # To be replaced by the rename that follows in the same request: nothing is done by itself.
            replaced = self.session.request.opcode == libfuse2.RENAME
            return None if replaced else Asked("unlink", path=_relative(path), caller=self._who())
        fields = dict(zip(_ARGUMENTS.get(name, ()), given[1:], strict=False))
        asked = Asked(name, path=_relative(path), caller=self._who(), fields=fields)
        if name in ("rename", "link"):
            # link(path, source): the new name comes first
            source, target = (path, given[1]) if name == "rename" else (given[1], path)
            return asked._replace(path=_relative(source), to_path=_relative(target))
        if name == "symlink":
            return asked._replace(data=given[1])
        if name in ("getxattr", "setxattr", "removexattr"):
            more = {"flags": given[3]} if name == "setxattr" else {}
            return asked._replace(attribute=given[1], data=given[2] if more else b"", fields=more)
        if name in ("open", "create"):
            return asked._replace(fields={**fields, "flags": given[-1].flags})
        return _as_setattr(asked, name, given) or asked

    def _asked_of_handle(self, name: str, given: Sequence[Any]) -> Asked:
        at, names = _HANDLES[name]
        fh = given[at] if isinstance(given[at], int) else given[at].fh
        fields = {key: value for key, value in zip(names, given, strict=False) if key}
        data = given[1] if name == "write" else b""
        if name == "write":
            fields["size"] = len(data)
        return Asked(name, self.node_of(fh), caller=self._who(), fields={"fh": fh, **fields}, data=data)

    def _asked_of_open(self, name: str, given: Sequence[Any]) -> Asked:
        """getattr or truncate of a handle that has no path."""
        fh = given[-1].fh
        asked = Asked(name, self.node_of(fh), caller=self._who(), fields={"fh": fh})
        if name == "truncate":
            return asked._replace(op="setattr", fields={"fh": fh, "size": given[1]})
        return asked

    def _who(self) -> Caller:
        return self._caller()


def _relative(path: bytes) -> bytes:
    return path[1:]


def _as_setattr(asked: Asked, name: str, given: Sequence[Any]) -> Asked | None:
    """chmod, chown, truncate and utimens are one request of FUSE's."""
    if name == "chmod":
        fields = {"mode": given[1] & 0o7777}
    elif name == "chown":
        fields = {key: value for key, value in zip(("uid", "gid"), given[1:], strict=True) if value != -1}
    elif name == "truncate":
        fields = {"size": given[1]}
    elif name == "utimens":
        fields = {}
        for key, (seconds, nanoseconds) in zip(("atime_ns", "mtime_ns"), given[1:], strict=True):
            if nanoseconds == libfuse2.UTIME_NOW:
                fields[key] = -1
            elif nanoseconds != libfuse2.UTIME_OMIT:
                fields[key] = seconds * 1_000_000_000 + nanoseconds
    else:
        return None
    return asked._replace(op="setattr", fields=fields)


def _answered(name: str, given: Sequence[Any], result: Any) -> Answered:
    if name in ("open", "create"):
        return Answered(fh=given[-1].fh, way="direct" if given[-1].direct_io else "cached")
    if name == "opendir":
        return Answered(fh=result)
    if name == "read" or isinstance(result, bytes):
        data = b"" if name == "read" or name == "getattr" else result
        return Answered(amount=None if name == "getattr" else len(result), data=data)
    if name == "write":
        return Answered(amount=result)
    if name in ("readdir", "listxattr"):
        return Answered(amount=len(result))
    return Answered()
