"""`Stack`: layers merged in process, with no mount and no daemon; a `Tree` over the engine itself.

A `Stack` is used as a context manager and offers every method of `Tree` on the merged tree:

    with Stack(["/srv/site", "/srv/base"], upper="/tmp/changes") as stack:
        stack.write_text("etc/motd", "hello\\n")
        for change in stack.diff():
            print(change)
        stack.commit("/tmp/changes.tar.gz")

Without an upper every change is EROFS. What is written lies in the upper exactly as a mount would leave it there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from unionfs.api import copies
from unionfs.api.changes import CommitResult, Holding, Progress, commit_spec, diff_spec
from unionfs.api.describing import describe
from unionfs.api.layers import LayerSpec, plan, remove_temporary
from unionfs.api.paths import AnyPath, Tree
from unionfs.api.union import open_union
from unionfs.changeset.change import Change
from unionfs.changeset.compression import Compression
from unionfs.overlay import UnionOptions
from unionfs.vfs import Caller


def current_caller() -> Caller:
    """Who this process is: what a `Stack` creates belongs to it and obeys its umask."""
    umask = os.umask(0o077)
    os.umask(umask)
    return Caller(os.geteuid(), os.getegid(), os.getpid(), umask)


class Stack(Tree):
    """Layers (topmost first) under an optional upper, as one tree.

    `upper`, `work`, `ephemeral` and `store` as in `plan`: LayerError for a stack that makes no sense. The layers must
    not be changed by others while the stack is open, and one upper is used by one stack or mount at a time.
    """

    def __init__(
        self,
        layers: Iterable[LayerSpec],
        upper: LayerSpec | None = None,
        work: LayerSpec | None = None,
        *,
        read_only: bool = False,
        ephemeral: bool = False,
        options: UnionOptions | None = None,
        caller: Caller | None = None,
        store: LayerSpec | None = None,
    ) -> None:
        self.spec = plan(layers, upper, work, read_only=read_only, ephemeral=ephemeral, store=store)
        self._open = False
        try:
            me = current_caller()
            fs = open_union(self.spec, options, me.umask)
            describe(fs, self.spec)
            super().__init__(fs, caller or me)
            self._open = True
        finally:
            if not self._open:
                self._clean()

    def close(self) -> None:
        """Close the layers; an ephemeral stack's changes are gone with it. Idempotent."""
        if self._open:
            self._open = False
            try:
                self.filesystem.close()
            finally:
                self._clean()

    def _clean(self) -> None:
        if self.spec.temporary is not None:
            remove_temporary(self.spec.temporary)

    def copy_in(self, source: AnyPath, path: AnyPath) -> None:
        """Copy a file, link or directory with all below it from the host to the new name `path` in the stack."""
        copies.copy_in(self, source, path)

    def copy_out(self, path: AnyPath, target: AnyPath) -> None:
        """Copy a file, link or directory with all below it from the stack to the new name `target` on the host."""
        copies.copy_out(self, path, target)

    def diff(self) -> list[Change]:
        """What the upper changes, as `unionfs.api.diff`."""
        self.filesystem.syncfs()
        return diff_spec(self.spec)

    def commit(
        self,
        output: AnyPath,
        *,
        compression: Compression | None = None,
        clamp_mtime: int | None = None,
        skip_sockets: bool = False,
        progress: Progress | None = None,
    ) -> CommitResult:
        """Write what the upper changes as an OCI layer tar, as `unionfs.api.commit`."""
        self.filesystem.syncfs()
        return commit_spec(
            self.spec,
            output,
            Holding(),
            compression=compression,
            clamp_mtime=clamp_mtime,
            skip_sockets=skip_sockets,
            progress=progress,
        )
