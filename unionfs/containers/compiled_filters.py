"""Seccomp filters as crun has compiled them, kept: it takes libseccomp longer than all else that crun does.

    RUNTIME_ROOT/.filters/KEY    a program of struct sock_filter

crun leaves what it has compiled beside the state of a container (`seccomp.bpf`), and takes it back in an annotation
(crun(1), run.oci.seccomp_bpf_data). KEY is made of the filter and of the program that compiled it, so that another crun
makes its own. The directory is the caller's, as the state of his containers is. runc knows nothing of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final

ANNOTATION: Final = "run.oci.seccomp_bpf_data"
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
            of = [program, info.st_size, info.st_mtime_ns, os.uname().release, resolved]
            key = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
            self._path = os.path.join(runtime_root, _DIRECTORY, os.fsencode(key))

    def annotations(self) -> dict[str, str]:
        """Those of a container that is to have it; empty where it is not kept, and compiled once more."""
        data = b"" if self._path is None else _read(self._path)
        return {ANNOTATION: base64.b64encode(data).decode()} if data else {}

    def keep(self, container_id: str) -> None:
        """Keep what was compiled for a container that was made. Idempotent; a crash leaves it, or not. What fails is
        done by the next one."""
        if self._path is None or os.path.exists(self._path):
            return
        made = _read(os.path.join(self._root, os.fsencode(container_id), _MADE))
        if not made:
            return
        new = b"%b.%d" % (self._path, os.getpid())
        try:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            with open(new, "xb") as file:
                file.write(made)
            os.rename(new, self._path)
        except OSError:
            pass


def _read(path: bytes) -> bytes:
    """A whole program, or nothing."""
    try:
        with open(path, "rb") as file:
            data = file.read(_INSTRUCTION * _MAX_INSTRUCTIONS + 1)
    except OSError:
        return b""
    return data if len(data) <= _INSTRUCTION * _MAX_INSTRUCTIONS and not len(data) % _INSTRUCTION else b""
