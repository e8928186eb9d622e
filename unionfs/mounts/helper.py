"""The command line and the `-o` text of `unionfs-mount`, as fuse-overlayfs and mount.fuse take them.

    parse_argv             argv -> HelperRequest
    parse_mount_options    one -o text -> (key, value) pairs
    from_options           such pairs -> OverlayOptions: layers apart from the rest
    split_lowers           the value of lowerdir -> paths
    parse_id_mapping       the value of uidmapping or gidmapping
    extra_mount_flags      the options that the kernel's mount takes as they are

Three callers, one grammar: podman and buildah (`-o DATA DIR`, always three arguments), people
(`-f -o … DIR -o …`), and mount(8) (`SRC DIR -n -o … -t TYPE`). So options stand anywhere, `-oOPT` may be glued, the
last word that is no option is the mountpoint, and nothing unknown is fatal: an unknown `-x` is worth a line on stderr,
an unknown `-o` word is not (containers/storage passes on whatever storage.conf says).

In `-o` text a comma within `"…"` does not separate, a backslash protects the next character, and empty words are
skipped (storage writes `,,volatile` and trailing commas). `:` separates lowers unless it is protected.

Pure: no file is looked at, nothing is printed. Any input gives a result or OptionError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from unionfs.errors import OptionError

Action = Literal["mount", "version", "help"]

USAGE: Final = """\
usage: unionfs-mount [-f] [-d] -o lowerdir=A[:B…][,upperdir=U,workdir=W][,OPTION…] MOUNTPOINT
       unionfs-mount SOURCE MOUNTPOINT -o …        (as called by mount -t fuse.unionfs-mount)

    lowerdir=A:B:…    read-only layers, topmost first; write a colon in a path as \\:
    lowerdir+=C       one more layer below the others
    upperdir=U        where changes go; without it the mount is read-only
    workdir=W         an empty directory on the file system of U
    metacopy=on       a change of owner, mode, times or xattrs copies up no data
    layer_xattrs=off  no attributes user.unionfs.* that say which layer a file is from
    uidmapping=A:B:N[:…], gidmapping=…    ids from A on disk are shown as B…, N of them
    squash_to_root, squash_to_uid=U, squash_to_gid=G    every file is shown as one owner's
    xattr_permissions=1|2    owners, modes and devices are kept in xattrs: 1 security.*, 2 user.*
    -f, --foreground  stay in the foreground
    -d, --debug       print every request; implies -f
    -V, --version     print the version
    -h, --help        print this
"""

_FOREGROUND: Final = {"-f", "--foreground"}
_DEBUG: Final = {"-d", "--debug"}
_VERSION: Final = {"-V", "--version"}
_HELP: Final = {"-h", "--help"}
# mount(8) to its helpers: -n no mtab, -s sloppy, -v verbose. -s is libfuse's "single thread" too. Nothing to do.
_NOTHING: Final = {"-n", "-s", "-v", "-w", "--verbose"}
_WITH_VALUE: Final = {"-t", "-N"}  # mount(8): the type, the mount namespace

_FLAG_WORDS: Final = """
    suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime norelatime strictatime
    sync async dirsync
"""
_OPTION_WORDS: Final = """
    fsname subtype allow_other allow_root default_permissions nonempty max_write max_read debug
    volatile fsync redirect_dir index xino metacopy userxattr nfs_export uuid verity layer_xattrs
    uidmapping gidmapping squash_to_root squash_to_uid squash_to_gid static_nlink noacl noxattrs xattr_permissions
    timeout threaded fast_ino writeback ino32_t transport passthrough log_file
"""
#: mount(2) flags a FUSE mount may carry; handed on to the transport.
MOUNT_FLAGS: Final = frozenset(_FLAG_WORDS.split())
#: Security labels; a value may hold commas and goes to the kernel in quotes.
LABELS: Final = frozenset({"context", "fscontext", "defcontext", "rootcontext"})
_RECOGNISED: Final = MOUNT_FLAGS | LABELS | frozenset(_OPTION_WORDS.split())

#: What says which owners and modes are shown and stored.
OWNER_OPTIONS: Final = frozenset(
    "uidmapping gidmapping squash_to_root squash_to_uid squash_to_gid xattr_permissions".split()
)

#: The default of fields that hold options.
NO_OPTIONS: Final[Mapping[str, str | None]] = MappingProxyType({})


class OverlayOptions(NamedTuple):
    """What `-o` text says. `lowers` topmost first. `options`: recognised words, None for one without `=`;
    `unknown`: the others, as given, to be ignored or refused by the caller."""

    lowers: tuple[bytes, ...] = ()
    upper: bytes | None = None
    work: bytes | None = None
    read_only: bool = False
    options: Mapping[str, str | None] = NO_OPTIONS
    unknown: tuple[str, ...] = ()

    @property
    def volatile(self) -> bool:
        """Nothing need be synced: `volatile`, or fuse-overlayfs's `fsync=0`, the kernel's `fsync=volatile`."""
        return "volatile" in self.options or self.options.get("fsync") in ("0", "volatile")


class HelperRequest(NamedTuple):
    """What the command line asks for. Beyond `action` all is empty unless that is "mount".

    `source` is SRC of the mount(8) form; it has become `options["fsname"]` if there was none. `ignored` are lines for
    stderr. Paths are as given, relative ones too.
    """

    action: Action
    lowers: tuple[bytes, ...] = ()
    upper: bytes | None = None
    work: bytes | None = None
    mountpoint: bytes = b""
    source: bytes | None = None
    foreground: bool = False
    debug: bool = False
    read_only: bool = False
    options: Mapping[str, str | None] = NO_OPTIONS
    ignored: tuple[str, ...] = ()
    unknown_options: tuple[str, ...] = ()
    volatile: bool = False


def parse_argv(argv: Sequence[bytes | str]) -> HelperRequest:
    """The request in `argv` (without argv[0]). OptionError: no mountpoint, no lowerdir, upperdir without workdir,
    `-o` without text, or options that contradict each other."""
    words = [os.fsdecode(word) for word in argv]
    flags: set[str] = set()
    positional: list[str] = []
    pairs: list[tuple[str, str | None]] = []
    ignored: list[str] = []
    only_positional = False
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if only_positional or not word.startswith("-") or word == "-":
            positional.append(word)
        elif word == "--":
            only_positional = True
        elif word in _VERSION:
            return HelperRequest("version")
        elif word in _HELP:
            return HelperRequest("help")
        elif word.startswith("-o"):
            text = word[2:]
            if not text:
                if position == len(words):
                    raise OptionError("-o needs an argument", hint="unionfs-mount -o lowerdir=A:B MOUNTPOINT")
                text = words[position]
                position += 1
            pairs += parse_mount_options(text)
        elif word in _WITH_VALUE:
            position += 1
        elif word in _FOREGROUND | _DEBUG | {"-r"}:
            flags.add(word)
        elif word not in _NOTHING and word[:2] not in _WITH_VALUE:
            ignored.append(f"unknown argument ignored: {word}")
    return _request(positional, pairs, flags, ignored)


def _request(
    positional: list[str], pairs: list[tuple[str, str | None]], flags: set[str], ignored: list[str]
) -> HelperRequest:
    if not positional or not positional[-1]:
        raise OptionError("no mountpoint given", hint="unionfs-mount -o lowerdir=A:B MOUNTPOINT")
    overlay = from_options(pairs)
    if not overlay.lowers:
        raise OptionError("no lowerdir given", hint="-o lowerdir=TOPMOST:…:LOWEST")
    if overlay.upper is not None and overlay.work is None:
        raise OptionError("upperdir without workdir", hint="add workdir=DIR, an empty directory beside the upperdir")
    options = dict(overlay.options)
    source = positional[-2] if len(positional) > 1 else None
    if source is not None:
        options.setdefault("fsname", source)
    debug = bool(flags & _DEBUG) or "debug" in options
    return HelperRequest(
        "mount",
        lowers=overlay.lowers,
        upper=overlay.upper,
        work=overlay.work,
        mountpoint=os.fsencode(positional[-1]),
        source=None if source is None else os.fsencode(source),
        foreground=debug or bool(flags & _FOREGROUND),
        debug=debug,
        read_only=overlay.upper is None or overlay.read_only or "-r" in flags,
        options=options,
        ignored=tuple(ignored),
        unknown_options=overlay.unknown,
        volatile=overlay.volatile,
    )


def parse_mount_options(text: bytes | str) -> list[tuple[str, str | None]]:
    """The words of one `-o` text in order, as (key, value), value None where there is no `=`.

    Quotes are gone; backslash escapes still stand in the values, for `split_lowers` to tell `\\:` from `:`
    (`unescape` removes them). Bytes that are not UTF-8 are surrogate escapes.
    """
    words: list[str] = []
    word: list[str] = []
    quoted = False
    characters = iter(os.fsdecode(text))
    for character in characters:
        if character == "\\":
            word.append(character + next(characters, "\\"))  # a backslash at the very end stands for itself
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            words.append("".join(word))
            word = []
        else:
            word.append(character)
    words.append("".join(word))
    pairs = (word.partition("=") for word in words if word)
    return [(key, value if equals else None) for key, equals, value in pairs]


def unescape(value: str) -> str:
    """`value` with each backslash taken away and the character after it kept."""
    characters = iter(value)
    return "".join(next(characters, "\\") if character == "\\" else character for character in characters)


def split_lowers(value: str) -> list[bytes]:
    """The paths of a lowerdir value, topmost first. OptionError for data-only layers (`::`)."""
    paths: list[str] = [""]
    characters = iter(value)
    for character in characters:
        if character == "\\":
            paths[-1] += next(characters, "\\")
        elif character == ":":
            paths.append("")
        else:
            paths[-1] += character
    if "" in paths[1:-1]:
        raise OptionError(f"data-only layers are not supported: lowerdir={value}", hint="separate layers by one ':'")
    return [os.fsencode(path) for path in paths if path]


def from_options(pairs: Iterable[tuple[str, str | None]]) -> OverlayOptions:
    """Sort pairs of `parse_mount_options` (of several -o, in order): the last of a key wins, `lowerdir+` adds.

    OptionError: a directory option without a value, a data-only layer, a NUL byte, what is no security label.
    """
    lowers: list[bytes] = []
    directories: dict[str, bytes] = {}
    options: dict[str, str | None] = {}
    unknown: list[str] = []
    read_only = False
    for key, value in pairs:
        if key in ("lowerdir", "lowerdir+", "upperdir", "workdir"):
            if not value:
                raise OptionError(f"{key} needs a directory", hint=f"-o {key}=DIRECTORY")
            if key == "lowerdir":
                lowers = split_lowers(value)
            elif key == "lowerdir+":
                lowers.append(os.fsencode(unescape(value)))  # one path: its colons mean nothing
            else:
                directories[key] = os.fsencode(unescape(value))
        elif key == "datadir+":
            raise OptionError("data-only layers are not supported: datadir+", hint="use lowerdir=")
        elif key in ("ro", "rw"):
            read_only = key == "ro"
        elif key in _RECOGNISED:
            options[key] = None if value is None else unescape(value)
            _check_label(key, options[key])
        else:
            unknown.append(key if value is None else f"{key}={value}")
    if any(b"\0" in path for path in (*lowers, *directories.values())):
        raise OptionError("a path holds a NUL byte")
    for key, value in options.items():
        if value is not None and "\0" in value:
            raise OptionError(f"the mount option {key} holds a NUL byte")
    return OverlayOptions(
        tuple(lowers), directories.get("upperdir"), directories.get("workdir"), read_only, options, tuple(unknown)
    )


def _check_label(key: str, value: str | None) -> None:
    """OptionError for a label that would not end where its quotes do: what follows would be options of their own."""
    if key in LABELS and (not value or '"' in value or "\\" in value):
        raise OptionError(f"{key}={(value or '')!r}: not a security label", hint=f'{key}="USER:ROLE:TYPE:LEVEL"')


def parse_id_mapping(value: str) -> tuple[tuple[int, int, int], ...]:
    """(on disk, shown, count) triples of `uidmapping=A:B:N[:A:B:N…]`.

    containers/storage writes a colon in front too (optsAppendMappings); empty fields are skipped. OptionError for
    anything but triples of numbers below 2**32, count above 0.
    """
    numbers = [field for field in value.split(":") if field]
    if not numbers or len(numbers) % 3 or not all(n.isascii() and n.isdigit() and len(n) <= 10 for n in numbers):
        raise OptionError(f"not an id mapping: {value}", hint="uidmapping=ON_DISK:SHOWN:COUNT[:…]")
    flat = [int(number) for number in numbers]
    triples = tuple(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
    if any(count == 0 or max(disk, shown) + count > 1 << 32 for disk, shown, count in triples):
        raise OptionError(f"not an id mapping: {value}", hint="ids are below 2**32, counts above 0")
    return triples


def extra_mount_flags(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """The words among `options` for `transport.MountOptions.extra`, in their order."""
    flags = [key for key, value in options.items() if key in MOUNT_FLAGS and value is None]
    return (*flags, *(f'{key}="{value}"' for key, value in options.items() if key in LABELS and value))
