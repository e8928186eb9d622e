"""A program that mounts a loopback as the commands mount a union, for the tests of `unionfs.mounts`.

`python -m tests.unit.mounts_program SPEC`, SPEC a JSON object:

    root, mountpoint     the directory to show, and where
    runtime              the runtime directory
    upper, work          what to claim (default: nothing)
    log, foreground      as run_in_background, run_in_foreground
    allow_other          as MountOptions
    fault                what goes wrong before the mount is ready, a key of FAULTS

Prints the daemon's pid (or, in the foreground, "ready"). Exit status and stderr are those of the commands: `error:`,
`hint:`, 1.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from unionfs.errors import LayerError, UnionFSError
from unionfs.mounts.control import ControlServer
from unionfs.mounts.daemon import Ready, run_in_background, run_in_foreground
from unionfs.mounts.mountpoint import check_mountpoint
from unionfs.mounts.registry import MountRecord, Registry
from unionfs.testing.loopback import LoopbackFilesystem
from unionfs.transport import MountOptions, fusepy


def _layer_error() -> None:
    raise LayerError("layer /nowhere does not exist", hint="mkdir /nowhere")


def _bug() -> None:
    raise ZeroDivisionError("a bug")


FAULTS: dict[str, Callable[[], object]] = {
    "layer error": _layer_error,
    "os error": lambda: os.stat("/does/not/exist"),
    "bug": _bug,
    "exit": lambda: os._exit(7),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminated": signal.pause,
}


def _bytes(spec: dict[str, Any], key: str) -> bytes | None:
    return os.fsencode(spec[key]) if spec.get(key) else None


def make_serve(spec: dict[str, Any], mountpoint: bytes) -> Callable[[Ready], None]:
    def serve(ready: Ready) -> None:
        if "fault" in spec:
            print("on the way to a fault", file=sys.stderr, flush=True)
            FAULTS[spec["fault"]]()
        record = MountRecord.for_this_process(
            mountpoint, [os.fsencode(spec["root"])], _bytes(spec, "upper"), _bytes(spec, "work"), "fusepy"
        )
        registry = Registry(os.fsencode(spec["runtime"]))
        handlers = {"ping": lambda params: {"pid": os.getpid(), "cwd": os.getcwd(), "umask": os.umask(0)}}
        with registry.claim(record) as entry, ControlServer(entry.control_path, handlers):
            fs = LoopbackFilesystem(spec["root"])
            try:
                fusepy.serve(fs, mountpoint, MountOptions(allow_other=spec.get("allow_other")), ready)
            finally:
                fs.close()

    return serve


def main(argument: str) -> int:
    spec: dict[str, Any] = json.loads(argument)
    try:
        mountpoint = check_mountpoint(os.fsencode(spec["mountpoint"]))
        serve = make_serve(spec, mountpoint)
        if spec.get("foreground"):

            def aloud(ready: Ready) -> None:
                def said() -> None:
                    ready()
                    print("ready", flush=True)

                serve(said)

            run_in_foreground(aloud, mountpoint, log_file=spec.get("log"))
        else:
            print(run_in_background(serve, mountpoint, log_file=spec.get("log")), flush=True)
    except UnionFSError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
