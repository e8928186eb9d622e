"""`LayerCache`: layer tars made ready to be read in place, each once, whoever uses it: uncompressed and indexed.

    ROOT/tars/HEX       the uncompressed tar with this diff_id, where none lies elsewhere to be read
    ROOT/indexes/HEX    its index (layers.tar_index)
    ROOT/merged/HEX     the index of a whole stack of them (image.merged)
    ROOT/places/HEX     where the uncompressed tar lies instead, and which file that was
    ROOT/files/ID-…     the diff_id of a tar somewhere on this machine, by device, inode, size and times of the file
    ROOT/archives/ID-…  stores of image archives that were given as layers (api.image_layers)
    ROOT/lazy/          layers of which not all was fetched (image.lazy)
    ROOT/new/           being written (image.cache_directory)

A tar is read once: decompressed, hashed, indexed and written in one pass. Files appear by rename, complete and flushed,
and are never changed, so readers need no lock and two writers of one layer do the same work twice, without harm. What
is lost or damaged is made anew as long as the tar is there; removing ROOT costs time only.

INVARIANT: what is in `tars` has been hashed on its way in. `verify` hashes again. A tar that lies elsewhere is known by
its inode, size and times; if those have changed, it is hashed anew, and refused if it is another.

Nothing is taken from a directory that others can write to: an index says where data is, and who owns it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from unionfs.changeset.compression import HEAD, recognise
from unionfs.errors import LayerError, OptionError, TarError
from unionfs.image.cache_directory import CacheDirectory, cache_directory, unlink
from unionfs.layers.tar import MergedTarLayer, TarLayer
from unionfs.layers.tar_index import IndexDamaged, IndexHeader, TarIndex
from unionfs.linux.data import pwrite_sparse

# What reads a tar is imported where a layer is read the first time: most are opened by their index.
if TYPE_CHECKING:
    from unionfs.changeset.tar_reader import TarReader

Progress = Callable[[int], None]

#: A compressed layer may come to this many bytes; to more only if it is not more than so many times what it was. (gzip
#: reaches 1000, of zeros; what people keep in layers seldom 20.)
FREE_SIZE: Final = 1 << 30
MAX_RATIO: Final = 100

_DIFF_ID: Final = re.compile(r"sha256:([0-9a-f]{64})")
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Added(NamedTuple):
    """A layer that is ready. `size` in bytes, uncompressed; `digest` ("sha256:…") and `stored_size` of the bytes as
    they came; None and 0 where they were not read, since the layer was known."""

    diff_id: str
    size: int
    digest: str | None = None
    stored_size: int = 0


def user_cache(environ: Mapping[str, str] = os.environ) -> LayerCache:
    """The cache as the environment has it: UNIONFS_CACHE, UNIONFS_LAYER_LIMIT (bytes). OptionError for no number."""
    limit = environ.get("UNIONFS_LAYER_LIMIT")
    if limit is not None and not (limit.isascii() and limit.isdigit()):
        raise OptionError(f"UNIONFS_LAYER_LIMIT={limit}: not a number of bytes")
    return LayerCache(cache_directory(environ), limit=None if limit is None else int(limit))


class LayerCache(CacheDirectory):
    """See the module. `root` is made (0700) by what first writes to it.

    `limit`: bytes that any compressed layer may come to, in place of FREE_SIZE and MAX_RATIO.
    Errors: TarError for what is no layer tar, LayerError for a layer that is not there, is not the one it should be, or
    is a decompression bomb, OSError as file systems say. What fails leaves nothing behind.
    """

    def __init__(self, root: bytes | str, *, limit: int | None = None) -> None:
        super().__init__(root)
        self.limit = limit

    def allowed(self, stored: int) -> int:
        """Bytes that a compressed layer of `stored` ones may come to."""
        return max(FREE_SIZE, MAX_RATIO * stored) if self.limit is None else self.limit

    # what is there --------------------------------------------------------------------------------------------------
    def has(self, diff_id: str) -> bool:
        """Can the layer be opened, without reading all of its tar?"""
        key = _hex(diff_id)
        try:
            os.close(self._open_tar(key))
        except LayerError:
            return False
        return self._index_header(key) is not None

    def path(self, diff_id: str) -> bytes:
        """The uncompressed tar of a layer that is there. It may be given as a layer by itself."""
        key = _hex(diff_id)
        os.close(self._open_tar(key))
        held, place = self._path("tars", key), self._place(key)
        return held if place is None or os.path.exists(held) else place.path

    def open(self, diff_id: str) -> TarLayer:
        """A layer by its diff_id. An index that is missing is made."""
        key = _hex(diff_id)
        return self._layer(self._open_tar(key), key, diff_id)

    def open_file(self, path: bytes | str, progress: Progress | None = None) -> TarLayer:
        """The layer that a file is: a tar, compressed or not, told by its content. It is made ready if it is not."""
        path = os.path.abspath(os.fsencode(path))
        fd = _open_file(path)
        try:
            key = _hex(self._add_file(fd, path, None, progress).diff_id)
            tar = self._open_tar(key) if recognise(os.pread(fd, HEAD, 0)) else os.dup(fd)
        finally:
            os.close(fd)
        return self._layer(tar, key, os.fsdecode(path))

    def merge(self, layers: Sequence[TarLayer]) -> TarLayer:
        """Layers of this cache (topmost first, without hard links to others) as one, which replaces them: they are
        closed, but by a failure. The merged index is made if it is not there."""
        from unionfs.image.merged import chain_of, write_merged  # which needs the engine

        chain = chain_of(layers)
        path, diff_ids = self._path("merged", chain.hex()), [layer.diff_id for layer in layers]

        def opened() -> TarIndex:
            index = TarIndex(os.open(path, _FLAGS))
            if index.header.diff_id != chain:
                index.close()
                raise IndexDamaged("it is of other layers")
            return index

        def made(of: Sequence[TarLayer]) -> TarIndex:
            with self._new_file() as (file, publish):
                write_merged(of, file)
                publish(path)
            return opened()

        def rebuild() -> TarIndex:
            again = [self.open(diff_id) for diff_id in diff_ids]
            try:
                return made(again)
            finally:
                for layer in again:
                    layer.close()

        try:
            index = opened()
        except (FileNotFoundError, IndexDamaged):
            index = made(layers)
        name = f"{layers[0].name} and {len(layers) - 1} below"
        fds: list[int] = []
        try:
            fds += [layer.another_fd() for layer in reversed(layers)]
            merged = MergedTarLayer(fds, index, name, rebuild)
        except BaseException:
            index.close()
            for fd in fds:
                os.close(fd)
            raise
        for layer in layers:
            layer.close()
        return merged

    # taking in ------------------------------------------------------------------------------------------------------
    def add(
        self, source: bytes | str | BinaryIO, diff_id: str | None = None, progress: Progress | None = None
    ) -> Added:
        """Make a layer tar ready, compressed or not. `diff_id`: what it must be. Idempotent.

        A file that is a plain tar is indexed where it lies, and must stay there; one that is known is not read again. A
        stream is read from where it stands to its end, and kept. `progress` gets the bytes of the source read so far.
        """
        wanted = None if diff_id is None else _hex(diff_id)
        if not isinstance(source, bytes | str):
            return self._take(source, wanted, progress, None)
        path = os.path.abspath(os.fsencode(source))
        fd = _open_file(path)
        try:
            return self._add_file(fd, path, wanted, progress)
        finally:
            os.close(fd)

    def _add_file(self, fd: int, path: bytes, wanted: str | None, progress: Progress | None) -> Added:
        before = file_identity(os.fstat(fd))
        known = self._known(before)
        header = None if known is None else self._index_header(known)
        if header is not None and wanted in (None, known):
            key = header.diff_id.hex()
            plain = not recognise(os.pread(fd, HEAD, 0))
            if plain or os.path.exists(self._path("tars", key)):
                if plain:
                    self._note_place(key, _Place(before, path))
                return Added("sha256:" + key, header.tar_size)
        added = self._take(_Positioned(fd), wanted, progress, path)
        if file_identity(os.fstat(fd)) != before:
            raise LayerError(f"layer {os.fsdecode(path)}: the file was changed while it was read", hint="try again")
        key = _hex(added.diff_id)
        if not os.path.exists(self._path("tars", key)):
            self._note_place(key, _Place(before, path))
        self._write_small("files", before, key.encode())
        return added

    def add_held(self, stream: BinaryIO, diff_id: str | None = None) -> Added:
        """`add` for a stream whose bytes the caller keeps in a file. If they are a plain tar, only its index is made.
        Where the file is, the caller tells with `note` once it is there to stay."""
        return self._take(stream, None if diff_id is None else _hex(diff_id), None, b"")

    def note(self, diff_id: str, path: bytes) -> None:
        """The file `path` is the layer `diff_id`, which the caller has just hashed. LayerError where it is gone."""
        key = _hex(diff_id)
        fd = _open_file(path)
        try:
            identity = file_identity(os.fstat(fd))
            if not recognise(os.pread(fd, HEAD, 0)):
                self._note_place(key, _Place(identity, path))
        finally:
            os.close(fd)
        self._write_small("files", identity, key.encode())

    def _take(
        self, stream: BinaryIO | _Positioned, wanted: str | None, progress: Progress | None, place: bytes | None
    ) -> Added:
        """Read a layer to its end. `place`: where it lies and can stay, if it is a plain tar; None: nowhere."""
        from unionfs.changeset.tar_indexer import TarIndexer
        from unionfs.changeset.tar_reader import TarReader

        shown = f"layer {os.fsdecode(place)}" if place else "layer"
        with self._new_file() as (index_file, publish_index), self._new_file() as (tar_file, publish_tar):
            reader = TarReader(stream, progress, marked=wanted is None)  # type: ignore[arg-type]  # it uses read() only
            kept = None
            if reader.compressed or place is None:
                kept = _Kept(tar_file, reader, self.allowed, shown, self.root)
                reader.tee = kept.feed
            indexer = TarIndexer()
            for entry in reader:
                indexer.add(entry)
            key = _hex(reader.diff_id)
            if wanted not in (None, key):
                raise LayerError(
                    f"{shown} is not the one it should be: its diff_id is {reader.diff_id}, not sha256:{wanted}",
                    hint="it is damaged, or another file has its place",
                )
            indexer.write(index_file, bytes.fromhex(key), reader.plain_size)
            if kept is not None:
                kept.finish()
                publish_tar(self._path("tars", key))
            publish_index(self._path("indexes", key))
        return Added(reader.diff_id, reader.plain_size, reader.digest, reader.size)

    def size(self, diff_id: str) -> int | None:
        """Bytes of the uncompressed tar of a layer that was made ready; None for others."""
        self._check_root()
        header = self._index_header(_hex(diff_id))
        return None if header is None else header.tar_size

    def known_as(self, path: bytes) -> str | None:
        """The diff_id of a file that was read before, and has not changed; None of any other."""
        try:
            key = self._known(file_identity(os.stat(path)))
        except FileNotFoundError:
            return None
        return None if key is None else f"sha256:{key}"

    def unattached(self) -> set[str]:
        """The diff_ids of layers that came from streams: no file outside of the cache is known to be one of them."""
        self._check_root()
        attached = {self._known(name) for name in self._names("files")} | set(self._names("places"))
        return {f"sha256:{key}" for kind in ("tars", "indexes") for key in self._names(kind) if key not in attached}

    # upkeep ---------------------------------------------------------------------------------------------------------
    def remove(self, *diff_ids: str) -> None:
        """Forget layers and what is kept of them; a tar that lies elsewhere stays. Open layers go on. Idempotent."""
        keys = {_hex(diff_id) for diff_id in diff_ids}
        if not keys:
            return
        for key in keys:
            for kind in ("indexes", "places", "tars"):
                unlink(self._path(kind, key))
        for name in self._names("merged"):  # made again where they are wanted
            unlink(self._path("merged", name))
        for name in self._names("files"):
            if self._known(name) in keys:
                unlink(self._path("files", name))

    def verify(self, diff_id: str) -> list[str]:
        """Read all of a layer again: what is wrong with it, in sentences. LayerError where it is not there."""
        key = _hex(diff_id)
        fd = self._open_tar(key)
        try:
            with self._new_file() as (file, _):
                try:
                    self._index(fd, key, file)
                except (TarError, LayerError) as error:
                    return [f"its tar is damaged: {error}"]
                file.seek(0)
                try:
                    with open(self._path("indexes", key), "rb") as there:
                        while (piece := there.read(1 << 20)) == (wanted := file.read(1 << 20)):
                            if not wanted:
                                return []
                        return ["its index is damaged" if piece else "its index is cut short"]
                except FileNotFoundError:
                    return ["its index is missing"]
        finally:
            os.close(fd)

    def _index(self, fd: int, key: str, file: BinaryIO) -> None:
        """Write the index of an uncompressed tar. LayerError where that is not the tar `key`."""
        from unionfs.changeset.tar_indexer import TarIndexer
        from unionfs.changeset.tar_reader import TarReader

        reader, indexer = TarReader(_Positioned(fd), marked=False), TarIndexer()  # type: ignore[arg-type]
        for entry in reader:
            indexer.add(entry)
        if reader.compressed or _hex(reader.diff_id) != key:
            raise LayerError(f"the tar of the layer sha256:{key} is another by now: its digest is {reader.diff_id}")
        indexer.write(file, bytes.fromhex(key), reader.plain_size)

    # layers ---------------------------------------------------------------------------------------------------------
    def _layer(self, fd: int, key: str, name: str) -> TarLayer:
        """Takes `fd` over."""

        def rebuild() -> TarIndex:
            with self._new_file() as (file, publish):
                self._index(fd, key, file)
                publish(self._path("indexes", key))
            return TarIndex(os.open(self._path("indexes", key), _FLAGS))

        index = None
        try:
            try:
                index = TarIndex(os.open(self._path("indexes", key), _FLAGS))
                if index.header.diff_id.hex() != key or index.header.tar_size != os.fstat(fd).st_size:
                    index.close()
                    raise IndexDamaged("it is of another tar")
            except (FileNotFoundError, IndexDamaged):
                index = rebuild()
            return TarLayer(fd, index, name, rebuild)
        except BaseException:
            if index is not None:
                index.close()
            os.close(fd)
            raise

    def _open_tar(self, key: str) -> int:
        """A descriptor of the uncompressed tar."""
        self._check_root()
        try:
            return os.open(self._path("tars", key), _FLAGS)
        except FileNotFoundError:
            pass
        place = self._place(key)
        missing = LayerError(f"the layer sha256:{key} is not in the cache {os.fsdecode(self.root)}")
        if place is None:
            raise missing
        try:
            fd = _open_file(place.path)
        except LayerError:
            raise missing from None
        try:
            now = file_identity(os.fstat(fd))
            if now != place.identity:
                with self._new_file() as (file, _):  # hashes it
                    self._index(fd, key, file)
                self._note_place(key, _Place(now, place.path))
            return fd
        except BaseException:
            os.close(fd)
            raise

    def _index_header(self, key: str) -> IndexHeader | None:
        try:
            index = TarIndex(os.open(self._path("indexes", key), _FLAGS))
        except (FileNotFoundError, IndexDamaged):
            return None
        index.close()
        return index.header if index.header.diff_id.hex() == key else None

    # small files ----------------------------------------------------------------------------------------------------
    def _known(self, identity: str) -> str | None:
        """The key of a file that was read before."""
        self._check_root()
        try:
            with open(self._path("files", identity), "rb") as file:
                text = file.read(65).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        return text if _KEY.fullmatch(text) else None

    def _place(self, key: str) -> _Place | None:
        try:
            with open(self._path("places", key), "rb") as file:
                identity, _, path = file.read().partition(b" ")
        except FileNotFoundError:
            return None
        return _Place(identity.decode("ascii", "replace"), path) if path.startswith(b"/") else None

    def _note_place(self, key: str, place: _Place) -> None:
        if self._place(key) != place and not os.path.exists(self._path("tars", key)):
            self._write_small("places", key, place.identity.encode() + b" " + place.path)


class _Place(NamedTuple):
    """A plain tar outside of the cache, and which file that was when it was read."""

    identity: str
    path: bytes


class _Positioned:
    """Reads a file from its beginning, wherever its descriptor stands."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data


class _Kept:
    """The uncompressed tar on its way into the cache (`root`). Zeros are left as holes."""

    def __init__(
        self, file: BinaryIO, reader: TarReader, allowed: Callable[[int], int], shown: str, root: bytes
    ) -> None:
        self._fd, self._root = file.fileno(), root
        self._reader, self._allowed, self._shown = reader, allowed, shown
        self._size = 0

    def feed(self, data: bytes) -> None:
        end = self._size + len(data)
        if self._reader.compressed:
            allowed = self._allowed(self._reader.size)
            if end > allowed:
                raise LayerError(
                    f"{self._shown} decompresses to more than {allowed >> 20} MiB",
                    hint="it may be a decompression bomb; if you trust it, set UNIONFS_LAYER_LIMIT to the bytes it may "
                    "come to",
                )
        try:
            pwrite_sparse(self._fd, memoryview(data), self._size)
        except OSError as error:
            error.filename = self._root
            raise
        self._size = end

    def finish(self) -> None:
        os.ftruncate(self._fd, self._size)


def _hex(diff_id: str) -> str:
    found = _DIFF_ID.fullmatch(diff_id)
    if found is None:
        raise LayerError(f"not the diff_id of a layer: {diff_id[:100]!r}", hint="sha256: and 64 hexadecimal digits")
    return found[1]


def file_identity(st: os.stat_result) -> str:
    """Which file that is, and which state of it. (A change within one tick of the clock that keeps the size is seen
    where the file system has multigrain timestamps, as Linux 6.13's have.)"""
    return f"{st.st_dev:x}-{st.st_ino:x}-{st.st_size:x}-{st.st_mtime_ns:x}-{st.st_ctime_ns:x}"


def _open_file(path: bytes) -> int:
    shown = os.fsdecode(path)
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        raise LayerError(f"layer {shown} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LayerError(f"layer {shown} is neither a directory nor a file", hint="give a directory or a layer tar")
    return fd
