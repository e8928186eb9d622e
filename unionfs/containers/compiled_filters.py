"""Seccomp filters as crun has compiled them, kept: it takes libseccomp longer than all else that crun does.

    RUNTIME_ROOT/.filters/PROGRAM-VERSION-FILTER    a program of struct sock_filter
    RUNTIME_ROOT/.filters/.NAME.HEX                 being written (changeset.replacing)

crun leaves what it has compiled beside the state of a container (`seccomp.bpf`), and takes it back in an annotation
(crun(1), run.oci.seccomp_bpf_data). The name is made of the filter and of the program that compiled it, so that another
crun makes its own. The directory is the caller's, as the state of his containers is. runc knows nothing of it.

A file's mtime is when it was asked for last. Who adds one sweeps: what another version of the same program compiled,
what was not asked for for UNUSED_SECONDS, the longest unused of more than MOST, and what a crash left half written.
Nobody needs a lock for that: a filter is read whole, and one that is gone is compiled again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final

from unionfs.changeset.replacing import replace_file

ANNOTATION: Final = "run.oci.seccomp_bpf_data"
#: Filters that are kept. Containers of one kind have the same; each is 32 KiB at most.
MOST: Final = 16
UNUSED_SECONDS: Final = 30 * 86400.0
#: It takes a moment to write one. Who is swept away while he does has not kept his.
UNFINISHED_SECONDS: Final = 3600.0
_DIRECTORY: Final = b".filters"
_MADE: Final = b"seccomp.bpf"
#: A filter of the kernel has at most BPF_MAXINSNS instructions of 8 bytes (<linux/bpf_common.h>).
_INSTRUCTION, _MAX_INSTRUCTIONS = 8, 4096


class CompiledFilter:
    """That of one resolved filter (`linux.seccomp`), by one runtime; `program` its path. None is kept but crun's."""

    def __init__(self, runtime_root: bytes, program: str, resolved: Mapping[str, Any]) -> None:
        self._root = runtime_root
        self._path: bytes | None = None
        if os.path.basename(program) == "crun":
            info = os.stat(program)
            of = (program, [info.st_size, info.st_mtime_ns, os.uname().release], resolved)
            self._path = os.path.join(runtime_root, _DIRECTORY, b"-".join(map(_hash, of)))

    def annotations(self) -> dict[str, str]:
        """Those of a container that is to have it; empty where it is not kept, and compiled once more."""
        data = b"" if self._path is None else _read(self._path)
        if self._path is None or not data:
            return {}
        with contextlib.suppress(OSError):  # swept just now
            os.utime(self._path)
        return {ANNOTATION: base64.b64encode(data).decode()}

    def keep(self, container_id: str) -> None:
        """Keep what was compiled for a container that was made. Idempotent; a crash leaves it, or not. What fails is
        done by the next one."""
        if self._path is None or os.path.exists(self._path):
            return
        made = _read(os.path.join(self._root, os.fsencode(container_id), _MADE))
        if not made:
            return
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            replace_file(self._path, made, 0o600)
            _sweep(self._path)


def _hash(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest().encode()


def _sweep(added: bytes) -> None:
    """See the module. `added`: the path of the newest, whose time is now."""
    directory, name = os.path.split(added)
    program, version, _ = name.split(b"-")
    now = os.stat(added).st_mtime
    kept = []
    for other in os.listdir(directory):
        path = os.path.join(directory, other)
        with contextlib.suppress(FileNotFoundError):  # of who sweeps at this moment
            unused = now - os.stat(path).st_mtime
            is_older_version = other.startswith(program + b"-") and not other.startswith(b"%b-%b-" % (program, version))
            if is_older_version or unused > (UNFINISHED_SECONDS if other.startswith(b".") else UNUSED_SECONDS):
                os.unlink(path)
            elif not other.startswith(b"."):
                kept.append((unused, path))
    for _, path in sorted(kept)[MOST:]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _read(path: bytes) -> bytes:
    """A whole program, or nothing."""
    try:
        with open(path, "rb") as file:
            data = file.read(_INSTRUCTION * _MAX_INSTRUCTIONS + 1)
    except OSError:
        return b""
    return data if len(data) <= _INSTRUCTION * _MAX_INSTRUCTIONS and not len(data) % _INSTRUCTION else b""
