"""`Simulator`: one command at a time on a `World`, and what came of each.

    simulator = Simulator()
    for command in parse(open("script.union")):
        step = simulator.run(command)          # ScriptError where the command fails, or is none

The same commands always give the same steps, to the byte. That is also how `undo` works: all commands but the last are
given once more to a new world.
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from unionfs.changeset.tar_format import DIR, LINK, SYMLINK
from unionfs.errors import OptionError, ScriptError, UnionFSError
from unionfs.explain import personality as other
from unionfs.explain.personality import PERSONALITIES, UNIONFS, Personality
from unionfs.explain.picture import ENCODINGS, Change, Column, Encoding, Picture, changes, describe, members
from unionfs.explain.script import Command
from unionfs.explain.world import UPPER, World
from unionfs.layers import whiteout
from unionfs.layers.memory import MemoryFile

Output = list[str] | None


class Verb(NamedTuple):
    """A command: its arguments, what it does, how many words it takes (`most` None: any number), the options it knows.
    `looks`: it changes nothing."""

    usage: str
    help: str
    least: int = 1
    most: int | None = 1
    options: str = ""
    looks: bool = False


VERBS: Final[dict[str, Verb]] = {
    "layer": Verb("NAME", "begin a layer; what follows fills it"),
    "whiteout": Verb("PATH", "put a whiteout into the layer being filled"),
    "opaque": Verb("DIR", "make a directory of that layer opaque"),
    "mount": Verb("[-o OPTION] [LAYER]…", "the layers, topmost first, below a new upper", 0, None, "o"),
    "remount": Verb("", "unmount, and mount the same again", 0, 0),
    "push": Verb("[NAME]", "the upper becomes a layer, below a new upper", 0),
    "pop": Verb("", "the layer pushed last is the upper again", 0, 0),
    "ls": Verb("[-i] [-l] [PATH]", "list; LAYER:PATH is what a layer has stored", 0, 1, "il", True),
    "cat": Verb("PATH", "show a file", 1, 1, "", True),
    "stat": Verb("PATH", "mode, owner, links, inode; of LAYER:PATH marks", 1, 1, "", True),
    "find": Verb("[PATH]", "all paths below one", 0, 1, "", True),
    "write": Verb("PATH TEXT…", "make a file, or write it anew", 1, None),
    "append": Verb("PATH TEXT…", "add a line to a file", 2, None),
    "touch": Verb("PATH", "make an empty file, or set its times"),
    "rm": Verb("[-r] PATH", "remove a file, or a whole directory", 1, 1, "r"),
    "mkdir": Verb("[-p] DIR", "make a directory", 1, 1, "p"),
    "rmdir": Verb("DIR", "remove an empty directory"),
    "mv": Verb("[--exchange] OLD NEW", "rename(2)", 2, 2, "x"),
    "ln": Verb("[-s] TARGET PATH", "another name for a file, or a symbolic link", 2, 2, "s"),
    "chmod": Verb("MODE PATH", "octal permissions", 2, 2),
    "chown": Verb("UID[:GID] PATH", "another owner", 2, 2),
    "open": Verb("NAME PATH", "open a file for reading, as NAME", 2, 2),
    "map": Verb("NAME PATH", "map a file into memory, as NAME", 2, 2),
    "read": Verb("NAME", "read what is open or mapped as NAME", 1, 1, "", True),
    "close": Verb("NAME", "close it"),
    "diff": Verb("", "what the upper changes: A, C, D", 0, 0, "", True),
    "commit": Verb("", "the upper as a layer tar: what is in it", 0, 0, "", True),
    "show": Verb("", "the layers and the merged tree once more", 0, 0, "", True),
    "undo": Verb("", "take the last change back", 0, 0),
}

#: `_open` holds what is open.
_METHODS = {"open": "_open_file"}
_HINTS = {
    errno.ENOTEMPTY: "rm -r removes a directory with what is in it",
    errno.EISDIR: "rm -r removes a directory",
    errno.ENOENT: "ls shows what there is",
    errno.EROFS: "mount puts an upper over the layers",
}


class Step(NamedTuple):
    """What a command did. `output`: what it printed. `failure`: how it failed, as it was to. `drawn`: is the picture
    worth showing, since it is another or was asked for?"""

    command: Command
    output: tuple[str, ...]
    changes: tuple[Change, ...]
    picture: Picture
    failure: str | None = None
    hint: str | None = None
    drawn: bool = False


def choose(as_: str = "unionfs", encoding: str = "kernel") -> tuple[Personality, Encoding]:
    """OptionError for what is none, or for two that do not go together."""
    if as_ not in PERSONALITIES:
        raise OptionError(f"unknown file system {as_!r}", hint=f"one of {', '.join(PERSONALITIES)}")
    for known in ENCODINGS:
        if known == encoding:
            if known == "aufs" and as_ != "unionfs":
                raise OptionError(
                    f"{as_} writes no AUFS whiteouts where the upper holds devices and xattrs",
                    hint="use --encoding kernel or oci, or leave --as",
                )
            return PERSONALITIES[as_], known
    raise OptionError(f"unknown encoding {encoding!r}", hint=f"one of {', '.join(ENCODINGS)}")


class Simulator:
    def __init__(self, personality: Personality = UNIONFS, encoding: Encoding = "kernel") -> None:
        self.personality = personality
        self.encoding = encoding
        self._past: list[Command] = []
        self._start()

    def _start(self) -> None:
        self.world = World(self.personality, self.encoding)
        self._open: dict[str, int | MemoryFile] = {}
        self._picture = self.world.picture()

    @property
    def picture(self) -> Picture:
        return self._picture

    # commands -----------------------------------------------------------------------------------------------------
    def run(self, command: Command) -> Step:
        """ScriptError where the command fails, or is none, or does not fail and is to."""
        before, done = self._picture, len(self._past)
        output: list[str] = []
        failure = hint = None
        try:
            output = self._run(command) or []
        except OSError as e:
            failure = f"{errno.errorcode.get(e.errno or 0, '?').replace('ENOTSUP', 'EOPNOTSUPP')} ({e.strerror})"
            hint = self._hint(command, e.errno or 0)
        except ScriptError as e:
            self._forget(done)
            if e.line is None and command.line is not None:
                raise ScriptError(str(e), line=command.line, hint=e.hint) from None
            raise
        except UnionFSError as e:
            failure, hint = str(e), e.hint
        finally:
            self._picture = self.world.picture()
            if failure is not None and self._picture == before:
                self._forget(done)
        if failure is not None and not command.fails:
            raise ScriptError(f"{command.text}: {failure}", line=command.line, hint=hint)
        if failure is None and command.fails:
            raise ScriptError(f"{command.text}: it does not fail", line=command.line, hint="leave the word fails out")
        drawn = self._picture != before or command.words[:1] == ("show",)
        found = changes(before, self._picture, self.encoding)
        return Step(command, tuple(output), found, self._picture, failure, hint, drawn)

    def _forget(self, done: int) -> None:
        """There is nothing to take back of a command that was refused."""
        if len(self._past) > done:
            del self._past[done:]
            self.world.seconds -= 1

    def _run(self, command: Command) -> Output:
        if not command.words:
            return None
        name, *words = command.words
        verb = VERBS.get(name)
        if verb is None:
            near = difflib.get_close_matches(name, VERBS, 1)
            raise ScriptError(f"no such command: {name}", hint=f"perhaps {near[0]}" if near else "help lists them")
        options, values, arguments = _split(name, verb, words)
        if name == "undo":
            self._undo()
            return None
        if not verb.looks:
            self._past.append(command)
            self.world.tick()
        method: Callable[..., Output] = getattr(self, _METHODS.get(name, "_" + name))
        output = method(*arguments, **({"options": options} if verb.options.strip("o") else {}), **values)
        if self.personality.opaque_file and self.world.upper is not None and not verb.looks:
            other.write_opaque_files(self.world.upper)
        return output

    def _hint(self, command: Command, code: int) -> str | None:
        if code == errno.EXDEV:
            return other.EXDEV_HINT.format(title=self.personality.title)
        if code == errno.EINVAL and any(".wh." in word for word in command.words):
            return other.WH_HINT
        if code == errno.EISDIR and command.words[0] != "rm":
            return None
        return _HINTS.get(code)

    def _undo(self) -> None:
        if not self._past:
            raise ScriptError("there is nothing to undo", hint="undo takes back a change")
        self._past.pop()
        past, self._past = self._past, []
        self._start()
        for command in past:
            try:
                self._run(command)
            except (OSError, UnionFSError):
                pass  # as it did the first time

    # layers and mounts --------------------------------------------------------------------------------------------
    def _layer(self, name: str) -> None:
        self.world.new_layer(name)

    def _whiteout(self, path: str) -> None:
        self._with_parents(path)
        self.world.hide(path)

    def _opaque(self, path: str) -> None:
        self._with_parents(path + "/x")
        self.world.hide_all(path)

    def _mount(self, *names: str, o: str | None = None) -> None:
        self.world.mount(names, o.split(",") if o else ())

    def _remount(self) -> None:
        self._open.clear()
        self.world.remount()

    def _push(self, name: str | None = None) -> None:
        self._open.clear()
        self.world.push(name or f"pushed-{len(self.world.pushed) + 1}")

    def _pop(self) -> None:
        self._open.clear()
        self.world.pop()

    # looking ------------------------------------------------------------------------------------------------------
    def _ls(self, path: str = "", *, options: str = "") -> Output:
        stored = self._stored(path)
        if stored is None:
            return self.world.shell.ls(path, inodes="i" in options, long="l" in options)
        column, below = stored
        prefix = below + "/" if below else ""
        found_there = column.stored.get(below)
        if found_there is not None and found_there.kind != "dir":
            return [found_there.name or below.rpartition("/")[2]]
        if below and found_there is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        lines = []
        for inner, found in column.stored.items():
            if inner.startswith(prefix) and "/" not in inner[len(prefix) :]:
                name = found.name or inner[len(prefix) :]
                lines.append(f"{name}  {describe(found, self.encoding)}" if "l" in options else name)
        if self._holds_opaque_file(column, below):
            lines.append(os.fsdecode(whiteout.OPAQUE))
        return sorted(lines)

    def _holds_opaque_file(self, column: Column, path: str) -> bool:
        found = column.stored.get(path)
        as_file = self.encoding != "kernel" or self.personality.opaque_file
        return as_file and found is not None and "opaque" in found.marks

    def _stored(self, path: str) -> tuple[Column, str] | None:
        """The column of LAYER:PATH and the path in it; None for a path in the merged tree."""
        name, colon, below = path.partition(":")
        if not colon:
            return None
        for found in self._picture.columns:
            if found.name == name:
                return found, below.strip("/")
        self.world.stored(name)  # says what there is
        raise ScriptError(f"{name} is not mounted", hint="ls shows what is")

    def _cat(self, path: str) -> Output:
        if self._stored(path) is None:
            return self.world.shell.cat(path)
        name, _, below = path.partition(":")
        file = self.world.stored(name).open(os.fsencode(below.strip("/")))
        data = bytes(file.fstat().st_size) if self._is_metacopy(path) else file.pread(file.fstat().st_size, 0)
        return data.decode("utf-8", "replace").splitlines()

    def _is_metacopy(self, path: str) -> bool:
        stored = self._stored(path)
        return stored is not None and stored[1] in stored[0].stored and "metacopy" in stored[0].stored[stored[1]].marks

    def _stat(self, path: str) -> Output:
        stored = self._stored(path)
        if stored is None:
            return self.world.shell.stat(path)
        column, below = stored
        if below not in column.stored:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        found = column.stored[below]
        words = [describe(found, self.encoding)]
        if found.kind != "whiteout":
            words += [f"mode {found.mode:04o}", f"owner {found.owner}"]
        return ["  ".join(words)]

    def _find(self, path: str = "") -> Output:
        return self.world.shell.find(path)

    def _diff(self) -> Output:
        return [change.text() for change in self.world.diff()]

    def _commit(self) -> Output:
        tar, written = self.world.tar()
        ends = {DIR: "/", LINK: " link to ", SYMLINK: " -> "}
        lines = []
        for entry, _ in members(tar):
            name = os.fsdecode(entry.name)
            end = ends.get(entry.type, "")
            lines.append((name.rstrip("/") if end == "/" else name) + end + os.fsdecode(entry.linkname))
        return [*lines, f"diff_id {written.diff_id}"]

    def _show(self) -> None:
        """The step says that the picture is wanted."""

    # changing -----------------------------------------------------------------------------------------------------
    def _with_parents(self, path: str) -> None:
        """While a layer is filled, directories come by themselves."""
        parent = path.strip("/").rpartition("/")[0]
        if not self.world.mounted and parent:
            self.world.shell.mkdir(parent, parents=True)

    def _check_name(self, *paths: str) -> None:
        """Of new objects in the merged tree."""
        if not self.world.mounted or not any(path.rpartition("/")[2].startswith(".wh.") for path in paths):
            return
        if self.personality.wh_refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), paths[0])
        if self.encoding == "oci":
            raise ScriptError("a layer tar cannot hold a name that begins with .wh.", hint="choose another name")

    def _write(self, path: str, *text: str) -> None:
        self._check_name(path)
        self._with_parents(path)
        self.world.shell.write(path, _line(text))

    def _append(self, path: str, *text: str) -> None:
        self._check_name(path)
        self.world.shell.write(path, _line(text), append=True)

    def _touch(self, path: str) -> None:
        self._check_name(path)
        self._with_parents(path)
        self.world.shell.touch(path)

    def _rm(self, path: str, *, options: str) -> None:
        self.world.shell.rm(path, recursive="r" in options)

    def _mkdir(self, path: str, *, options: str) -> None:
        self._check_name(*path.split("/"))
        made = self.world.shell.mkdir(path, parents="p" in options or not self.world.mounted)
        if self.personality.opaque_new and self.world.upper is not None:
            for directory in made:
                self._mark_new(directory)

    def _mark_new(self, path: str) -> None:
        with self.world.shell.existing(path.rpartition("/")[0]) as (tree, parent):
            assert self.world.fs is not None and self.world.upper is not None
            found = tree.lookup(parent.node, os.fsencode(path.rpartition("/")[2]))
            assert found is not None
            is_merged = any(number for number, _ in self.world.fs.sources(parent.node))
            if is_merged or self.personality.opaque_new == "all":
                (_, stored), *_ = self.world.fs.sources(found.node)
                other.mark_new_directory(self.world.upper, stored)

    def _rmdir(self, path: str) -> None:
        self.world.shell.rmdir(path)

    def _mv(self, old: str, new: str, *, options: str) -> None:
        self._check_name(new)
        if self.personality.exdev and self.world.mounted:
            for path in (old, new) if "x" in options else (old,):
                self._refuse_merged(path)
        self.world.shell.mv(old, new, exchange="x" in options)

    def _refuse_merged(self, path: str) -> None:
        """ovl_rename(): "if (!overwrite … ovl_type_merge_or_lower(old)" is EXDEV without redirect_dir."""
        with self.world.shell.existing(path, follow=False) as (_, node):
            assert self.world.fs is not None
            if node.attr.is_dir and any(number for number, _ in self.world.fs.sources(node.node)):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)

    def _ln(self, target: str, path: str, *, options: str) -> None:
        self._check_name(path)
        if "s" in options:
            self._with_parents(path)
            self.world.shell.symlink(target, path)
        else:
            self.world.shell.ln(target, path)

    def _chmod(self, mode: str, path: str) -> None:
        self.world.shell.chmod(_number(mode, 8, "mode", "four octal digits, as 0644"), path)

    def _chown(self, owner: str, path: str) -> None:
        uid, colon, gid = owner.partition(":")
        hint = "UID or UID:GID, as 1000:1000"
        group = _number(gid, 10, "group", hint) if colon else None
        self.world.shell.chown(_number(uid, 10, "owner", hint), group, path)

    # open files ---------------------------------------------------------------------------------------------------
    def _open_as(self, name: str) -> int | MemoryFile:
        if name not in self._open:
            there = f"open or mapped: {', '.join(self._open)}" if self._open else f"open {name} PATH"
            raise ScriptError(f"nothing is open as {name}", hint=there)
        return self._open[name]

    def _check_free(self, name: str) -> None:
        if name in self._open:
            raise ScriptError(f"{name} is open already", hint=f"close {name}")

    def _open_file(self, name: str, path: str) -> None:
        self._check_free(name)
        with self.world.shell.existing(path) as (tree, node):
            self._open[name] = tree.fs.open(node.node, os.O_RDONLY).fh

    def _map(self, name: str, path: str) -> None:
        self._check_free(name)
        if not (self.personality.mapping_keeps and self.world.mounted):
            self._open_file(name, path)
            return
        with self.world.shell.existing(path) as (_, node):
            assert self.world.fs is not None
            *_, (number, stored) = self.world.fs.sources(node.node)
            layer = self.world.stored(UPPER if number == 0 else self.world.lowers[number - 1])
            self._open[name] = layer.open(stored)

    def _read(self, name: str) -> Output:
        opened = self._open_as(name)
        assert self.world.fs is not None
        size = 1 << 20
        data = opened.pread(size, 0) if isinstance(opened, MemoryFile) else self.world.fs.read(opened, 0, size)
        return data.decode("utf-8", "replace").splitlines()

    def _close(self, name: str) -> None:
        opened = self._open_as(name)
        assert self.world.fs is not None
        if not isinstance(opened, MemoryFile):
            self.world.fs.release(opened)
        del self._open[name]


def _split(name: str, verb: Verb, words: list[str]) -> tuple[str, dict[str, str], list[str]]:
    """(option letters, options with a value, arguments). ScriptError for what the command does not take."""
    letters, values = "", dict[str, str]()
    arguments: list[str] = []
    usage = f"{name} {verb.usage}".strip()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--exchange" and "x" in verb.options:
            letters += "x"
        elif word == "-o" and "o" in verb.options and rest:
            values["o"] = rest.pop(0)
        elif word[:1] == "-" and len(word) > 1 and verb.options and not arguments:
            if set(word[1:]) - set(verb.options) - {"o"} or "o" in word:
                raise ScriptError(f"{name}: no such option: {word}", hint=f"usage: {usage}")
            letters += word[1:]
        else:
            arguments.append(word)
    if len(arguments) < verb.least or (verb.most is not None and len(arguments) > verb.most):
        what = "too few words" if len(arguments) < verb.least else "too many words"
        raise ScriptError(f"{name}: {what}", hint=f"usage: {usage}")
    return letters, values, arguments


def _line(text: tuple[str, ...]) -> bytes:
    return os.fsencode(" ".join(text)) + b"\n" if text else b""


def _number(text: str, base: int, what: str, hint: str) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise ScriptError(f"no {what}: {text}", hint=hint)
    return number
