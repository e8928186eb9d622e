"""Images as layers: what a layer specification that is not a path means (`api.layers.expand`).

NAME[:TAG], NAME@DIGEST, ID    an image in the store
oci:DIR[:TAG]                  one in an OCI image layout; without TAG the only one there
oci-archive:FILE[:NAME]        one in an archive, which is unpacked into the cache once, as a store
docker-archive:FILE[:NAME]
"""

from __future__ import annotations

import os

from unionfs.api.image_archives import unpacked
from unionfs.api.layers import IMAGE_SCHEMES, ImagePart, LayerSpec
from unionfs.errors import ImageError, ImageNotFound, LayerError
from unionfs.image.image import Image
from unionfs.image.layout import familiar
from unionfs.image.place import store_directory
from unionfs.image.store import Store


def image_part(text: str, at: int, directory: LayerSpec | None = None) -> tuple[ImagePart, tuple[bytes, ...]]:
    """An image as layers number `at` and following of a stack (0 the topmost), and their paths, topmost first.

    `directory`: the store for names. LayerError where there is no such image.
    """
    store, name = _found(text, directory)
    try:
        image = store.resolve(name)
        paths = layer_paths(store, image)
    except ImageNotFound as e:
        raise LayerError(
            f"layer {text} does not exist",
            hint=f"no directory or layer tar has that name, and no image in the store {os.fsdecode(store.directory)}",
        ) from e
    except ImageError as e:
        raise LayerError(f"layer {text}: {e}", hint=e.hint) from e
    if not paths:
        raise LayerError(f"layer {text}: the image has no layers", hint="mount another one, or a directory")
    return ImagePart(at, len(paths), image.id, store.directory), paths


def layer_paths(store: Store, image: Image) -> tuple[bytes, ...]:
    """The blobs of an image's layers, topmost first: layer specifications, of those not fetched too. ImageError where
    one is missing."""
    return tuple(store.layer_path(layer.digest) for layer in reversed(image.layers))


def _found(text: str, directory: LayerSpec | None) -> tuple[Store, str]:
    """The store that a specification means, and the name in it."""
    scheme = next((scheme for scheme in IMAGE_SCHEMES if text.startswith(scheme)), None)
    if scheme is None:
        return Store(store_directory(directory)), text
    path, name = _split(text.removeprefix(scheme), scheme)
    store = Store(path) if scheme == "oci:" else unpacked(path)
    return store, _name_in(store, name, text)


def _split(text: str, scheme: str) -> tuple[bytes, str]:
    """PATH[:NAME]: the path is the shortest beginning that exists, since a name has colons too."""
    ends = [at for at, char in enumerate(text) if char == ":"] + [len(text)]
    for end in ends:
        path = os.fsencode(text[:end])
        if os.path.isdir(path) if scheme == "oci:" else os.path.exists(path):
            return os.path.abspath(path), text[end + 1 :]
    what = "is not a directory" if scheme == "oci:" else "does not exist"
    raise LayerError(f"layer {scheme}{text}: {text.partition(':')[0]} {what}", hint=f"write {scheme}PATH[:NAME]")


def _name_in(store: Store, name: str, text: str) -> str:
    """What `name` means in a layout or archive: a whole name, a tag alone, as skopeo writes names there, or an ID; ""
    is the one image that there is. LayerError for none, or several."""
    try:
        images = store.images()
        named = [(one, str(image.id)) for image in images for one in image.names]
        found = {id for one, id in named if one in (name, familiar(name))} if name else {str(one.id) for one in images}
        # A tag before an ID: "3" is a tag much rather than the beginning of an ID.
        found = found or {id for one, id in named if one.rpartition(":")[2] == name}
        if not found and name:
            found = {str(store.resolve(name).id)}
    except ImageNotFound:
        found = set()
    except ImageError as e:
        raise LayerError(f"layer {text}: {e}", hint=e.hint) from e
    if len(found) == 1:
        return found.pop()
    names = ", ".join(one for image in images for one in image.names or (str(image.id),))
    what = f"is no image {name}" if name and not found else f"are {len(found) or 'no'} images"
    raise LayerError(f"layer {text}: there {what} in it", hint=f"add one of: {names}" if names else None)
