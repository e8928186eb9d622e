"""`work/incompat/`: what forbids to use an upper like any other, one directory a reason (kernel: the same).

The one reason there is: a *volatile* mount flushes nothing, so after a crash of the machine its upper may hold
anything. It leaves `work/incompat/volatile/dirty` (ovl_create_volatile_dirty() of fs/overlayfs/super.c), also when it
is unmounted in good order, since nothing is flushed then either. Whoever finds something in there refuses the upper
(ovl_workdir_cleanup_recurse() of readdir.c). The mark goes when a person says so: with `--force`, or by removing it,
as containers/storage does before each mount.
"""

from __future__ import annotations

from unionfs.errors import LayerError
from unionfs.layers.layer import WritableLayer

_DIRECTORY = b"work/incompat"
VOLATILE = _DIRECTORY + b"/volatile"


def check(upper: WritableLayer, work: WritableLayer, force: bool) -> None:
    """LayerError if the upper may not be used. With `force`, a mark of a volatile mount is no reason."""
    try:
        reasons = {entry.name for entry in work.scan(_DIRECTORY)}
    except (FileNotFoundError, NotADirectoryError):
        return
    unknown = reasons - {b"volatile"}
    if unknown:
        raise LayerError(
            f"the upper {upper.name} needs {min(unknown).decode(errors='backslashreplace')!r}, which is not known here",
            hint="mount it with what has last used it, perhaps a newer kernel",
        )
    if reasons and not force:
        raise LayerError(
            f"the upper {upper.name} was last used by a volatile mount: a crash since then may have damaged it",
            hint="begin with an empty upper and work directory; if the machine has not crashed since, use --force, "
            f"or remove {work.name}/{VOLATILE.decode()}",
        )


def mark_volatile(work: WritableLayer) -> None:
    """Idempotent."""
    for directory in (_DIRECTORY, VOLATILE):
        try:
            work.mkdir(directory, 0o700)
        except FileExistsError:
            pass
    try:
        work.create(VOLATILE + b"/dirty", 0o600).close()
    except FileExistsError:
        pass
