"""The exceptions unionfs raises, as one tree.

    OSError(errno)                file system outcomes; the engine answers nothing else
    UnionFSError                  everything that is not an errno: bad input, bad format, refused set-up
    ├── LayerError                a layer that cannot be used: missing, not a directory, nested wrongly
    ├── MountError                a mount that cannot be made, found or removed
    │   └── TransportUnavailable  libfuse or /dev/fuse is missing or may not be opened
    ├── OptionError               an option of a mount or container, or a combination of them, without meaning
    ├── ChangesetError            what a layer tar cannot hold, or a tar that is no layer
    │   └── TarError              malformed or hostile tar input, with the byte offset
    ├── ImageError                what the image store is asked for and cannot do
    │   ├── ImageNotFound         no image, or no platform of it, goes by that name
    │   ├── ImageInUse            a mount, or another name, stands against a removal
    │   ├── ReferenceFormatError  a text that is no name of an image
    │   ├── ChangeError           an instruction that changes no image's configuration
    │   ├── RegistryError         a registry that refuses, cannot be reached, or does not keep to its protocol
    │   └── ImageFormatError      an archive, layout or document that breaks its format or lies about its contents
    ├── SnapshotError             a line of a tree's snapshot that is no mtree(5)
    ├── ContainerError            a container that cannot be made, found, or told what it was asked
    ├── ScriptError               a line of a simulator's script that makes no sense, or whose command failed
    └── ProtocolError             bytes from a peer (kernel, control socket) that break their protocol

Every `UnionFSError` carries `hint`: what the person can do about it, or None.
"""

from __future__ import annotations


class UnionFSError(Exception):
    """Base of all errors that are not a plain errno. `str(e)` says what is wrong, `e.hint` what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class LayerError(UnionFSError):
    """A layer (or upper, or work directory) that cannot be used as asked."""


class MountError(UnionFSError):
    """A mount that cannot be made, found or removed."""


class TransportUnavailable(MountError):
    """The chosen way to speak FUSE does not exist on this machine."""


class OptionError(UnionFSError):
    """An option, of a mount or of a container, that is malformed or contradicts another."""


class ChangesetError(UnionFSError):
    """A tree that cannot be written as an OCI layer tar, or a changeset that cannot be applied."""


class TarError(ChangesetError):
    """Malformed or hostile tar input. `offset` is the byte offset in the uncompressed stream, if known."""

    def __init__(self, message: str, *, offset: int | None = None, hint: str | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})", hint=hint)
        self.offset = offset


class SnapshotError(UnionFSError):
    """A snapshot of a tree that breaks its format, mtree(5). `line` counts from 1; None: no single one is wrong."""

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}", hint=hint)
        self.line = line


class ScriptError(UnionFSError):
    """A line of a simulator's script that makes no sense, or whose command failed. `line` counts from 1; None: typed
    at the prompt."""

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}", hint=hint)
        self.line = line


class ProtocolError(UnionFSError):
    """Bytes from a peer that do not follow the protocol."""


class ImageError(UnionFSError):
    """What the image store is asked for and cannot do: an ambiguous name, a store that is none, a conflict."""


class ImageNotFound(ImageError):
    """No image, or no platform of it, goes by that name."""


class ImageInUse(ImageError):
    """A mount uses the image, or other names of it are in the way; `hint` says whether force would help."""


class ImageFormatError(ImageError):
    """An image archive, layout or JSON document that breaks its format, or whose bytes are not what it says."""


class ReferenceFormatError(ImageError):
    """A text that is no reference to an image; unionfs.image.reference has the grammar."""


class ChangeError(ImageError):
    """An instruction that no image's configuration can be changed by, or a malformed one; see unionfs.image.mutate."""


class RegistryError(ImageError):
    """A registry that refuses what it is asked for, cannot be reached, or does not keep to its protocol."""


class ContainerError(UnionFSError):
    """A container that cannot be made, found, run or told what it was asked."""
