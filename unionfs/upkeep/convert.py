"""A whole tree in another encoding of whiteouts, or with its own attributes in the other namespace; in place.

Nothing is changed before all of it is known to be possible. Idempotent. A crash leaves a mixture that readers of all
encodings see as the same tree, and that the next run completes: a change of the namespace is noted on the root
(`attributes.CONVERTING`) for as long as it is under way, since the tree then has attributes of both.

An AUFS tree says so by `.wh..wh.aufs` in its root, which readers of layers ignore, and without which an upper's `.wh.`
names are data: made before the first of them, removed after the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from unionfs.errors import LayerError
from unionfs.layers import whiteout
from unionfs.layers.layer import Layer, Path, WritableLayer
from unionfs.overlay.workdir import INDEX
from unionfs.upkeep.attributes import CONVERTING, PROBE
from unionfs.upkeep.encoding import ENCODINGS, Encoding, Refusal, Target, plan, refusals, translation
from unionfs.upkeep.steps import (
    MakeDevice,
    MakeEmpty,
    PutDevice,
    PutMarked,
    RemoveXattr,
    SetXattr,
    Step,
    Unlink,
    probe_devices,
    probe_xattr,
    take,
)
from unionfs.upkeep.stored import (
    NAMESPACES,
    TRUSTED,
    USER,
    Folder,
    Stored,
    is_aufs,
    join,
    read_object,
    split_mark,
    walk,
)

__all__ = ["ENCODINGS", "Converted", "Encoding", "Namespace", "convert"]

Namespace = Literal["trusted", "user"]
_NAMED: dict[Namespace, bytes] = {"trusted": TRUSTED, "user": USER}
#: How many of the refused names an error tells.
_TOLD = 5


class Converted(NamedTuple):
    """`xattrs`: the namespace of the union's own attributes now. `steps`: how many changes; 0: it was so already."""

    encoding: Encoding
    xattrs: Namespace
    steps: int


class _Survey(NamedTuple):
    """What reading all of a tree tells: one path for each namespace in use, one of a file in a hard-link index, the
    namespaces that an interrupted conversion was on the way to, and those in which one was just trying."""

    namespaces: dict[bytes, Path]
    indexed: Path | None
    interrupted: tuple[bytes, ...]
    probes: tuple[bytes, ...]


def convert(
    tree: WritableLayer,
    encoding: Encoding,
    *,
    xattrs: Namespace | None = None,
    work: WritableLayer | None = None,
    upper: bool = False,
    privileged: bool = True,
) -> Converted:
    """Bring `tree`, which no mount may use, into another encoding.

    `xattrs`: the namespace of the union's own attributes; None leaves them in theirs, or takes trusted if `privileged`.
    `work`: the directory with an upper's index. LayerError, with nothing changed, names what cannot be converted.
    """
    aufs = is_aufs(tree, upper=upper)
    survey = _survey(tree, aufs)
    target = _target(survey, encoding, xattrs, privileged)._replace(aufs=aufs, upper=upper)
    index = _index(work) if work is not None and target.translate else []
    _refuse(_refusals(tree, survey, target, work), encoding)
    steps = _all_steps(tree, index, target)
    if any(isinstance(step, MakeDevice | PutDevice) for step in steps) and not probe_devices(tree):
        if encoding != "fuse-overlayfs":
            raise LayerError("whiteout devices cannot be made here", hint="aufs and xattr whiteouts are plain files")
        target = target._replace(devices=False)
        _refuse(_refusals(tree, survey, target, work), encoding)
        steps = _all_steps(tree, index, target)
    opening, closing = _frame(tree, survey, target)
    take(tree, (RemoveXattr(b"", namespace + PROBE) for namespace in survey.probes))
    if not steps and not opening and not closing:
        return Converted(encoding, _name(target.namespace), 0)
    _probe_attributes(
        tree, {_prefix(step.name) for step in (*opening, *steps) if isinstance(step, SetXattr | PutMarked)}
    )
    return _execute(tree, work, index, target, opening, closing)


def _execute(
    tree: WritableLayer,
    work: WritableLayer | None,
    index: list[Stored],
    target: Target,
    opening: list[Step],
    closing: list[Step],
) -> Converted:
    take(tree, opening)
    done = len(opening) + len(closing)
    for folder in walk(tree, aufs=target.aufs):
        steps = plan(folder, target)
        take(tree, steps)
        done += len(steps)
    for entry in index:
        if work is not None:
            # Links of files that have been converted by now, or the only ones.
            steps = translation(read_object(work, entry.path), target.namespace)
            take(work, steps)
            done += len(steps)
    tree.sync()
    take(tree, closing)
    return Converted(target.encoding, _name(target.namespace), done)


def _name(namespace: bytes) -> Namespace:
    return "trusted" if namespace == TRUSTED else "user"


# beforehand -----------------------------------------------------------------------------------------------------------
def _survey(tree: Layer, aufs: bool) -> _Survey:
    namespaces: dict[bytes, Path] = {}
    indexed: Path | None = None
    interrupted: set[bytes] = set()
    probes: set[bytes] = set()
    for folder in walk(tree, aufs=aufs):
        for stored in _each(folder):
            for own in filter(None, map(split_mark, stored.marks)):
                if own[1] in (CONVERTING, PROBE):
                    (interrupted if own[1] == CONVERTING else probes).add(own[0])
                    continue
                namespaces.setdefault(own[0], stored.path)
                if own[1] == b"nlink":
                    indexed = stored.path
    return _Survey(namespaces, indexed, tuple(sorted(interrupted)), tuple(sorted(probes)))


def _each(folder: Folder) -> Iterator[Stored]:
    if not folder.path:
        yield folder.itself
    yield from folder.children.values()


def _target(survey: _Survey, encoding: Encoding, xattrs: Namespace | None, privileged: bool) -> Target:
    if len(survey.namespaces) > 1 and not survey.interrupted:
        paths = " and ".join(f"/{_show(path)}" for _, path in sorted(survey.namespaces.items()))
        raise LayerError(
            f"the tree has overlay attributes of both namespaces: {paths}",
            hint="unionfs check lists them; those of one may be the data of an overlay inside this one",
        )
    if xattrs is not None:
        namespace = _NAMED[xattrs]
    elif survey.interrupted:
        namespace = survey.interrupted[0]
    else:
        namespace = next(iter(survey.namespaces), TRUSTED if privileged else USER)
    translate = any(used != namespace for used in survey.namespaces) or bool(survey.interrupted)
    return Target(encoding, namespace, translate)


def _index(work: Layer) -> list[Stored]:
    try:
        return [read_object(work, join(INDEX, entry.name)) for entry in work.scan(INDEX)]
    except FileNotFoundError:
        return []


def _refusals(tree: Layer, survey: _Survey, target: Target, work: Layer | None) -> list[Refusal]:
    refused = [refusal for folder in walk(tree, aufs=target.aufs) for refusal in refusals(folder, target)]
    if target.translate and survey.indexed is not None and work is None:
        refused.append(Refusal(survey.indexed, "in the hard-link index of a work directory; give that too"))
    return refused


def _all_steps(tree: Layer, index: list[Stored], target: Target) -> list[Step]:
    """One step of each kind and attribute that there will be: what has to be possible."""
    steps: dict[tuple[type, bytes], Step] = {}
    for planned in (*(translation(entry, target.namespace) for entry in index), *_plans(tree, target)):
        for step in planned:
            steps.setdefault((type(step), _prefix(getattr(step, "name", b""))), step)
    return list(steps.values())


def _plans(tree: Layer, target: Target) -> Iterator[list[Step]]:
    for folder in walk(tree, aufs=target.aufs):
        yield plan(folder, target)


def _prefix(name: bytes) -> bytes:
    """The namespace of a mark, as one of the union's own."""
    return next((prefix for prefix in NAMESPACES if name.startswith(prefix)), USER if name else b"")


def _probe_attributes(tree: WritableLayer, prefixes: set[bytes]) -> None:
    for prefix in sorted(prefixes):
        reason = probe_xattr(tree, prefix + PROBE)
        if reason is not None:
            raise LayerError(
                f"attributes {prefix.decode()}* cannot be set here: {reason}", hint="choose --xattrs user, or be root"
            )


def _refuse(refused: list[Refusal], encoding: Encoding) -> None:
    if not refused:
        return
    told = "; ".join(f"/{_show(path)}: {reason}" for path, reason in refused[:_TOLD])
    more = f"; and {len(refused) - _TOLD} more" if len(refused) > _TOLD else ""
    hint = "nothing was changed"
    if any(reason.startswith("overlay.metacopy") for _, reason in refused):
        hint += "; with the layers below (-l), metacopies get their data first"
    raise LayerError(f"cannot be converted to {encoding}: {told}{more}", hint=hint)


def _show(path: Path) -> str:
    return path.decode("utf-8", "surrogateescape")


def _frame(tree: Layer, survey: _Survey, target: Target) -> tuple[list[Step], list[Step]]:
    """The first steps of all, and the last."""
    opening: list[Step] = []
    closing: list[Step] = []
    marked = whiteout.AUFS_MARKER in (entry.name for entry in tree.scan(b""))
    if target.dotted and not marked:
        opening.append(MakeEmpty(whiteout.AUFS_MARKER))
    elif marked and not target.dotted:
        closing.append(Unlink(whiteout.AUFS_MARKER))
    if target.translate and target.namespace not in survey.interrupted:
        opening.append(SetXattr(b"", target.namespace + CONVERTING, b"y"))
    closing += [
        RemoveXattr(b"", namespace + CONVERTING)
        for namespace in NAMESPACES
        if namespace in survey.interrupted or (target.translate and namespace == target.namespace)
    ]
    return opening, closing
