"""`python -m unionfs.testing.serve`: mount a file system in the foreground, for tests.

Writes "ready" and a newline on stdout once the mount answers. SIGTERM or SIGINT unmounts; the exit status is 0 after
any unmount, 1 with the error on stderr when the mount cannot be made. SIGUSR1 writes the stack of every thread on
stderr, for a test that found the server hanging. SIGUSR2 writes one line of JSON on stdout, the file system's
statistics and what `check_invariants` says (null: all hold); they are checked after the unmount as well, and there are
a traceback. Never a part of a user's mount: `unionfs mount` is that.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import cast

from unionfs.errors import MountError, UnionFSError
from unionfs.layers.layer import Layer
from unionfs.linux.process import raise_nofile_limit, reserve_descriptors
from unionfs.mounts.mountpoint import detach
from unionfs.transport import MountOptions
from unionfs.vfs import Filesystem

_UNMOUNT = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = _UNMOUNT | {signal.SIGUSR2}

Serve = Callable[[Filesystem, bytes, MountOptions, Callable[[], None]], None]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unionfs.testing.serve", description=__doc__)
    parser.add_argument("--fs", choices=["loopback", "union"], required=True)
    parser.add_argument("--transport", choices=["fusepy", "devfuse"], required=True)
    parser.add_argument("--root", help="the directory that a loopback shows")
    parser.add_argument("--lower", action="append", default=[], help="a layer, topmost first")
    parser.add_argument("--upper")
    parser.add_argument("--work")
    parser.add_argument("--ro", action="store_true")
    parser.add_argument("--changed-layers", action="store_true", help="check nothing: somebody changes the layers")
    parser.add_argument("--passthrough", choices=["auto", "off"], default="auto")
    parser.add_argument("mountpoint")
    return parser.parse_args(argv)


def make_filesystem(args: argparse.Namespace) -> Filesystem:
    """The file system asked for. What it is made of is imported only now: half of it may be enough."""
    if args.fs == "loopback":
        from unionfs.testing.loopback import LoopbackFilesystem

        return LoopbackFilesystem(args.root)
    from unionfs.layers.upper import WritableDirectory
    from unionfs.overlay import UnionFilesystem

    upper = WritableDirectory(args.upper) if args.upper else None
    work = WritableDirectory(args.work) if args.work else None
    return UnionFilesystem([_lower(path) for path in args.lower], upper, work)


def _lower(path: str) -> Layer:
    """A layer that is a directory, or a tar (made ready in the cache that the environment names)."""
    if os.path.isdir(path):
        from unionfs.layers.directory import DirectoryLayer

        return DirectoryLayer(path)
    from unionfs.image.cache_directory import cache_directory
    from unionfs.image.layer_cache import LayerCache

    return LayerCache(cache_directory()).open_file(path)


def report(filesystem: Filesystem) -> str:
    """The answer to SIGUSR2."""
    violated = None
    try:
        check_invariants(filesystem)
    except AssertionError as e:
        violated = str(e) or "an assertion failed"
    statistics: dict[str, int] = getattr(filesystem, "statistics", dict)()
    return json.dumps({"statistics": statistics, "violated": violated})


def check_invariants(filesystem: Filesystem) -> None:
    getattr(filesystem, "check_invariants", lambda: None)()


def act_on_signals(mountpoint: bytes, filesystem: Filesystem) -> None:
    """Wait for signals in a thread of its own, and at last unmount, which makes the transport return.

    The signals stay blocked everywhere: a handler would be the interpreter's, which does not run while libfuse's loop
    has the main thread, and whose mere presence keeps libfuse from setting its own.
    """

    def wait() -> None:
        while signal.sigwait(_SIGNALS) not in _UNMOUNT:
            say(report(filesystem))
        try:
            detach(mountpoint, lazy=False)
        except MountError:
            # Busy: a client has something open in it, or stands in it. It goes when that does.
            detach(mountpoint, lazy=True)

    threading.Thread(target=wait, name="signals", daemon=True).start()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ready() -> None:
    say("ready")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.umask(0)
    raise_nofile_limit()
    reserve_descriptors()
    mountpoint = os.fsencode(os.path.abspath(args.mountpoint))
    options = MountOptions(read_only=args.ro, passthrough=args.passthrough == "auto")
    try:
        serve = cast(Serve, importlib.import_module(f"unionfs.transport.{args.transport}").serve)
        filesystem = make_filesystem(args)
        try:
            act_on_signals(mountpoint, filesystem)
            serve(filesystem, mountpoint, options, ready)
            if not args.changed_layers:
                check_invariants(filesystem)
        finally:
            filesystem.close()
    except UnionFSError as e:
        print(f"error: {e}" + (f"\nhint: {e.hint}" if e.hint else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
