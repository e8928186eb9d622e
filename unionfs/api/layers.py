"""What may be stacked: layer specifications read, the upper and the work directory checked and made.

A *layer specification* is the path of a directory or of a layer tar; `check_layer` and `open_layer` give it meaning. It
may also name an image, which stands for all of its layers (`expand`; api.image_layers knows what such names mean). What
exists as a path is that path; `./NAME` never is an image.

`plan` does everything that can be refused before anything is mounted and answers with a `StackSpec` of absolute
paths, or with a `LayerError` that says what to do. It makes the upper and the work directory where they are missing.

The rules about overlap are the kernel's (ovl_check_overlapping_layers, fs/overlayfs/super.c), for its reason: a
layer that changes under our feet through another name would make nonsense of what we remember about it. Unlike the
kernel, read-only layers may overlap each other, since neither changes.
"""

from __future__ import annotations

import json
import os
import stat as _stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from unionfs.errors import LayerError
from unionfs.layers.directory import DirectoryLayer
from unionfs.layers.layer import Layer
from unionfs.mounts.registry import Registry

if TYPE_CHECKING:
    from unionfs.api.owners import Owners

LayerSpec: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: The directory of an ephemeral stack: this, and eight characters.
TEMPORARY_PREFIX: Final = b"unionfs-"

#: How a layer begins that is an image outside of the store.
IMAGE_SCHEMES: Final = ("oci:", "oci-archive:", "docker-archive:")

_Identity = tuple[int, int]  # st_dev, st_ino


class ImagePart(NamedTuple):
    """The layers of an image in a stack: `length` of them from number `at` on, 0 the topmost. `id` is the image's, in
    the store (any OCI image layout) `store`."""

    at: int
    length: int
    id: str
    store: bytes


class StackSpec(NamedTuple):
    """A checked stack. Paths are absolute; `lowers` topmost first; `upper` None means nothing can be written.

    `read_only`: an upper is only looked at, with what its work directory, if there is one, says of hard links.
    `temporary`: the directory that holds upper and work of an ephemeral stack, to be removed after it.
    `owners`: how they show and store owners and modes, unless it is the plain way. `images`: which of the lowers are
    of images, topmost first.
    """

    lowers: tuple[bytes, ...]
    upper: bytes | None = None
    work: bytes | None = None
    temporary: bytes | None = None
    read_only: bool = False
    owners: Owners | None = None
    images: tuple[ImagePart, ...] = ()


def open_layer(spec: LayerSpec) -> Layer:
    """The layer that a specification names; LayerError where there is none."""
    path = _absolute(spec)
    try:
        if _is_missing_blob(path):
            from unionfs.api.tar_layers import open_noted

            noted = open_noted(path)
            if noted is not None:
                return noted
        if not _stat.S_ISREG(_stat_layer(path).st_mode):
            return DirectoryLayer(check_directory(path))
        from unionfs.api.tar_layers import open_tar

        return open_tar(path)
    except OSError as e:
        raise LayerError(f"layer {_show(path)} cannot be opened: {e.strerror}") from e


def check_layer(spec: LayerSpec, progress: Callable[[int], None] | None = None) -> bytes:
    """The absolute path of a layer specification that can be opened. A layer tar is made ready, which reads it once;
    `progress` gets the bytes read so far."""
    path = _absolute(spec)
    if _is_missing_blob(path):
        from unionfs.api.tar_layers import make_noted_ready

        if make_noted_ready(path):
            return path
    if _stat.S_ISREG(_stat_layer(path).st_mode):
        from unionfs.api.tar_layers import make_ready

        try:
            make_ready(path, progress)
        except OSError as e:
            raise LayerError(f"layer {_show(path)} cannot be made ready: {e.strerror}") from e
        return path
    return check_directory(path)


def _is_missing_blob(path: bytes) -> bool:
    """Could that be the blob of a layer that a store knows of and has not fetched (image.lazy)?"""
    return b"/blobs/" in path and not os.path.lexists(path)


def make_ready(layers: Iterable[LayerSpec], progress: Callable[[int], None] | None = None) -> None:
    """Read the layer tars among `layers` that were not read before, so that opening them takes no time. `progress` gets
    the bytes done so far of all tars together; LayerError as `check_layer`."""
    done = 0

    def report(read: int) -> None:
        if progress is not None:
            progress(done + read)

    for spec in layers:
        if os.path.isfile(spec):
            check_layer(spec, report)
            done += os.path.getsize(spec)
            report(0)


def check_directory(spec: LayerSpec) -> bytes:
    """The absolute path of a layer that is a directory."""
    path = _absolute(spec)
    _stat_directory(path, "layer", hint=_layer_hint(path))
    if not os.access(path, os.R_OK | os.X_OK):
        raise LayerError(
            f"layer {_show(path)} cannot be read by this user", hint=f"chmod u+rx {_show(path)}, or run as its owner"
        )
    return path


def expand(
    layers: Iterable[LayerSpec], store: LayerSpec | None = None
) -> tuple[tuple[bytes, ...], tuple[ImagePart, ...]]:
    """The paths of layers, checked, and which of them are of images. `store`: where images are looked for by name."""
    lowers: list[bytes] = []
    images: list[ImagePart] = []
    for spec in layers:
        if not names_image(spec):
            lowers.append(check_layer(spec))
            continue
        from unionfs.api.image_layers import image_part

        part, paths = image_part(os.fsdecode(spec), len(lowers), store)
        lowers += [check_layer(path) for path in paths]
        images.append(part)
    return tuple(lowers), tuple(images)


def names_image(spec: LayerSpec) -> bool:
    """Whether it is no path: it begins as one of the archive formats, or nothing is there, nor looks like a path."""
    name = os.fsencode(spec)
    if os.fsdecode(name).startswith(IMAGE_SCHEMES):
        return True
    return bool(name) and not name.startswith((b"/", b".")) and not os.path.lexists(name)


def plan(
    layers: Iterable[LayerSpec],
    upper: LayerSpec | None = None,
    work: LayerSpec | None = None,
    *,
    read_only: bool = False,
    ephemeral: bool = False,
    registry: Registry | None = None,
    store: LayerSpec | None = None,
) -> StackSpec:
    """Check a stack and make what it lacks.

    `layers` topmost first. `upper` is made (mode 0755) if only its last component is missing, and so is `work`,
    which is the upper's name with ".work" behind it unless given. `ephemeral`: upper and work in a temporary
    directory. `read_only`: an upper, if given, stays as it is, and nothing is made. `store`: as in `expand`.
    """
    lowers, images = expand(layers, store)
    return _plan(lowers, upper, work, read_only, ephemeral, registry)._replace(images=images)


def _plan(
    lowers: tuple[bytes, ...],
    upper: LayerSpec | None,
    work: LayerSpec | None,
    read_only: bool,
    ephemeral: bool,
    registry: Registry | None,
) -> StackSpec:
    if ephemeral:
        if upper is not None or work is not None or read_only:
            other = "read-only" if read_only else "an upper or work directory of its own"
            raise LayerError(f"a stack cannot be ephemeral and {other}", hint="choose one of the two")
        _need_layers(lowers)
        return _ephemeral(lowers)
    if upper is None:
        if work is not None:
            raise LayerError("a work directory without an upper", hint="give the upper too (-u), or leave -w out")
        _need_layers(lowers)
        return StackSpec(lowers)
    top = _absolute(upper)
    if read_only:
        _stat_directory(top, "upper")
        desk = _absolute(work) if work is not None else default_work(top)
        return StackSpec(lowers, top, desk if os.path.isdir(desk) else None, read_only=True)
    _need_layers(lowers)
    desk = _absolute(work) if work is not None else default_work(top)
    _make(top, "upper")
    _check_writable(top, "upper")
    _check_overlap(lowers, top, desk)
    _make(desk, "work directory")
    _check_writable(desk, "work directory")
    _check_overlap(lowers, top, desk)
    _check_same_file_system(top, desk)
    _check_unused(top, desk, registry or Registry())
    return StackSpec(lowers, top, desk)


def remove_temporary(directory: bytes) -> None:
    """Remove the directory of an ephemeral stack, whatever modes were given to what is in it. Idempotent."""
    import shutil  # costs a mount some milliseconds, and most never come here

    def unlock(function: object, path: str | bytes, error: object) -> None:
        # Not root, and a directory without write or search permission: it is ours, so make it removable and go on.
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)

    if os.path.lexists(directory):
        if sys.version_info >= (3, 12):
            shutil.rmtree(directory, onexc=unlock)
        else:
            shutil.rmtree(directory, onerror=unlock)


def default_work(upper: bytes) -> bytes:
    """Beside the directory itself: "." has no name to put something behind, and a link may lead to another file
    system."""
    return os.path.realpath(upper) + b".work"


# checks ---------------------------------------------------------------------------------------------------------------
def _need_layers(lowers: Sequence[bytes]) -> None:
    if not lowers:
        raise LayerError("no layers to stack", hint="give at least one with -l LAYER or -o lowerdir=A:B")


def _absolute(spec: LayerSpec) -> bytes:
    path = os.fsencode(spec)
    if not path:
        raise LayerError("a layer has an empty name", hint="in lowerdir=A:B names are separated by one colon")
    # Not normpath, which would change the meaning of "link/..".
    return path if path.startswith(b"/") else os.path.join(os.getcwdb(), path)


#: The option of a mount's record that holds `StackSpec.images`.
IMAGES_OPTION: Final = "unionfs.images"


def images_option(parts: Sequence[ImagePart]) -> str:
    """`StackSpec.images` as a text, for the record of a mount."""
    return json.dumps([(part.at, part.length, part.id, os.fsdecode(part.store)) for part in parts])


def parts_of(options: Mapping[str, str | None]) -> tuple[ImagePart, ...]:
    """What `images_option` put into the record of a mount."""
    told = json.loads(options.get(IMAGES_OPTION) or "[]")
    return tuple(ImagePart(int(at), int(length), str(id), os.fsencode(store)) for at, length, id, store in told)


def _show(path: bytes) -> str:
    return os.fsdecode(path)


def _layer_hint(path: bytes) -> str:
    if b":" in path:
        return "a colon inside a name is written \\: in lowerdir=; with -l give one layer at a time"
    return "layers are directories or tars, topmost first"


def _stat_layer(path: bytes, role: str = "layer", hint: str | None = None) -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise LayerError(f"{role} {_show(path)} does not exist", hint=hint or _layer_hint(path)) from e
    except OSError as e:
        raise LayerError(f"{role} {_show(path)} cannot be looked at: {e.strerror}") from e


def _stat_directory(path: bytes, role: str, hint: str | None = None) -> os.stat_result:
    st = _stat_layer(path, role, hint)
    if not _stat.S_ISDIR(st.st_mode):
        raise LayerError(f"{role} {_show(path)} is not a directory", hint=hint)
    return st


def _make(path: bytes, role: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        _stat_directory(path, role)
    except FileNotFoundError as e:
        parent = os.path.dirname(path.rstrip(b"/"))
        raise LayerError(f"{role} {_show(path)} does not exist", hint=f"mkdir -p {_show(parent)}") from e
    except OSError as e:
        raise LayerError(f"{role} {_show(path)} cannot be made: {e.strerror}") from e


def _check_writable(path: bytes, role: str) -> None:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise LayerError(
            f"{role} {_show(path)} cannot be written by this user",
            hint="choose a directory of your own, or mount with --read-only",
        )


def _identity(path: bytes) -> _Identity | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_dev, st.st_ino


def _ancestry(path: bytes) -> list[_Identity]:
    """The directory and those that contain it, as far as its file system goes: a layer ends where another begins."""
    current = os.path.realpath(path)
    chain: list[_Identity] = []
    while True:
        identity = _identity(current)
        if identity is not None:
            if chain and identity[0] != chain[0][0]:
                break
            chain.append(identity)
        parent = os.path.dirname(current)
        if parent == current:
            break
        current = parent
    return chain


def _check_overlap(lowers: Sequence[bytes], upper: bytes, work: bytes) -> None:
    """Upper, work and each lower must be three trees with nothing in common. `work` need not exist yet."""
    up, desk = _ancestry(upper), _ancestry(work)
    work_id = _identity(work)
    if work_id == up[0]:
        raise LayerError(
            f"upper and work directory are the same, {_show(upper)}",
            hint="leave -w out: it is then made beside the upper",
        )
    if up[0] in desk:
        raise LayerError(
            f"work directory {_show(work)} lies inside the upper {_show(upper)}",
            hint="put it beside the upper, on the same file system",
        )
    if work_id in up:
        raise LayerError(
            f"upper {_show(upper)} lies inside the work directory {_show(work)}", hint="put them side by side"
        )
    for lower in lowers:
        low = _ancestry(lower)
        for role, path, chain in (("upper", upper, up), ("work directory", work, desk)):
            identity = _identity(path)
            if low[0] == identity:
                raise LayerError(
                    f"{role} {_show(path)} is also the layer {_show(lower)}",
                    hint="a layer stays as it is; changes need a directory of their own",
                )
            if low[0] in chain:
                raise LayerError(
                    f"{role} {_show(path)} lies inside the layer {_show(lower)}",
                    hint="choose a directory outside of all layers",
                )
            if identity in low:
                raise LayerError(
                    f"layer {_show(lower)} lies inside the {role} {_show(path)}",
                    hint="move one of them out of the other",
                )


def _check_same_file_system(upper: bytes, work: bytes) -> None:
    if os.stat(upper).st_dev != os.stat(work).st_dev:
        raise LayerError(
            f"upper {_show(upper)} and work directory {_show(work)} are on different file systems",
            hint="changes are built in the work directory and renamed into the upper: give -w a directory on the "
            "upper's file system",
        )


def _check_unused(upper: bytes, work: bytes, registry: Registry) -> None:
    for role, path in (("upper", upper), ("work directory", work)):
        user = registry.user_of(path)
        if user is not None:
            raise LayerError(
                f"{role} {_show(path)} is in use by {user}", hint="unmount that first, or choose another directory"
            )


def temporary_places() -> list[bytes]:
    """Where the directories of ephemeral stacks may be made, in order of preference; those that can be written."""
    import tempfile  # costs a mount some milliseconds, and most never come here

    candidates = [os.environb.get(b"TMPDIR", b""), b"/var/tmp", os.fsencode(tempfile.gettempdir()), b"/dev/shm"]
    places = [os.path.abspath(place) for place in candidates if place and os.access(place, os.W_OK | os.X_OK)]
    return list(dict.fromkeys(places))


def _ephemeral(lowers: tuple[bytes, ...]) -> StackSpec:
    """Upper and work in a fresh temporary directory that lies in none of the layers."""
    import tempfile  # as above

    layer_ids = {_identity(lower) for lower in lowers}
    for place in temporary_places():
        if not layer_ids.intersection(_ancestry(place)):
            break
    else:
        raise LayerError(
            "no temporary directory lies outside of the layers", hint="set TMPDIR, or give an upper with -u"
        )
    directory = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=place)
    spec = StackSpec(lowers, os.path.join(directory, b"upper"), os.path.join(directory, b"work"), directory)
    for path in (spec.upper, spec.work):
        assert path is not None
        os.mkdir(path, 0o755)
    return spec
