"""What may stand at a place of a command line: the answer to the shells' completion (`unionfs __complete SHELL …`).

The scripts in `completions/` ask. zsh and fish give the words, the last of which is to be completed, and get

    PATHS SKIP          which paths belong to it besides, for the shell to find: `files`, `directories`, `tars` or `-`;
                        and how many characters of the word come before the path (`oci:`, `lowerdir=A:`)
    WORD<tab>HELP       one line for each candidate

bash, which cuts words at `:` and `=` too, gives $COMP_WORDBREAKS and the line up to the cursor, which is taken apart
here, and gets all candidates, paths too, quoted as the word was begun, without what stands before the last cut.

Only what begins as the word does is offered, and no name with control characters, so that a name is never more than a
word, nor anything to a terminal. Nothing is run, changed or asked of a network; a failure is no candidate.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .commands import Command, Parameter, root

Candidates = Iterable[tuple[str, str]]


class Place(NamedTuple):
    """Where the cursor is: `verb` takes `word` as a value of `parameter`, or (None) as an option or the name of a verb.
    `words` of the arguments before it; `store` what --store said."""

    verb: Command
    parameter: Parameter | None
    word: str
    words: list[str]
    store: str | None


class Offer(NamedTuple):
    """`paths` and `skip`: see the module. What is before `prefix` in the word is not repeated in the candidates."""

    candidates: Candidates = ()
    paths: str = "-"
    prefix: str = ""


# values ---------------------------------------------------------------------------------------------------------------
def _mountpoints(place: Place) -> Candidates:
    """Live mounts, as the word begins to name them: absolute, or from the directory that it says, or from here."""
    from unionfs.api import suggestions

    head = place.word[: place.word.rfind("/") + 1]
    base = os.path.join(os.path.realpath(os.path.expanduser(head) or "."), "")
    for mountpoint in suggestions.mountpoints():
        path = os.fsdecode(mountpoint)
        if path.startswith(base) and path != base:
            yield head + path.removeprefix(base), ""
        elif not head:
            yield path, ""


def _images(place: Place) -> Candidates:
    from unionfs.api import suggestions

    for name in suggestions.image_names(place.store):
        yield name, ""
        yield name.removesuffix(":latest"), ""
    yield from suggestions.image_ids(place.store, place.word)


def _mounted(place: Place) -> Offer:
    return Offer(_mountpoints(place))


def _mounted_or_path(place: Place) -> Offer:
    return Offer(_mountpoints(place), "files")


def _image(place: Place) -> Offer:
    return Offer(_images(place))


def _layer(place: Place) -> Offer:
    """A directory, a tar, an image, or where images lie outside of a store."""
    for medium, paths in (("oci:", "directories"), ("oci-archive:", "tars"), ("docker-archive:", "tars")):
        if place.word.startswith(medium):
            return Offer((), paths, medium)
    media = [
        ("oci:", "an OCI image layout"), ("oci-archive:", "an image in a file"), ("docker-archive:", "of docker save"),
    ]  # fmt: skip
    return Offer([*_images(place), *(media if place.word else ())], "tars")


def _tree(place: Place) -> Offer:
    """What `diff` compares: a mount, any layer, or one of these as something special."""
    special = (
        ("layer:", "a layer as a changeset"), ("upper:", "an upper as a changeset"), ("snapshot:", "an mtree(5)"),
    )  # fmt: skip
    for medium, _ in special:
        if place.word.startswith(medium):
            return Offer((), "directories" if medium == "upper:" else "files", medium)
    layers = _layer(place)
    if layers.prefix:
        return layers
    return Offer([*_mountpoints(place), *layers.candidates, *(special if place.word else ())], "files")


def _reasons(place: Place) -> Offer:
    from unionfs import api

    done, comma, _ = place.word.rpartition(",")
    return Offer((done + comma + reason, "") for reason in api.Reason)


def _diff_formats(place: Place) -> Offer:
    return Offer((word, "") for word in ("docker", "podman", "table", "json"))


def _image_or_mount(place: Place) -> Offer:
    layer = _layer(place)
    return layer._replace(candidates=[*_mountpoints(place), *layer.candidates])


def _lessons(place: Place) -> Offer:
    from unionfs.api import suggestions

    return Offer((name, title) for name, title in suggestions.lessons())


def _container(place: Place) -> Offer:
    from unionfs.api import suggestions

    return Offer(suggestions.containers(place.store, place.word))


def _container_or_image(place: Place) -> Offer:
    return Offer([*_container(place).candidates, *_images(place)])


def _container_path(place: Place) -> Offer:
    """A path here, or `NAME:`, and then a path that only the container knows."""
    if ":" in place.word:
        return Offer()
    return Offer([(f"{name}:", image) for name, image in _container(place).candidates], "files")


def _mount_or_container(place: Place) -> Offer:
    return Offer([*_mountpoints(place), *_container(place).candidates])


def _stack(place: Place) -> Offer:
    """What `show` takes in place of layers."""
    lessons = [(f"lesson:{name}", title) for name, title in _lessons(place).candidates]
    return Offer([*_mountpoints(place), *_images(place), *(lessons if place.word else ())], "files")


def _variables(place: Place) -> Offer:
    return Offer((name, "") for name in os.environ)


def _signals(place: Place) -> Offer:
    return Offer((one.name.removeprefix("SIG"), "") for one in signal.Signals)


def _security(place: Place) -> Offer:
    return Offer([("no-new-privileges", "")])


def _kept_changes(place: Place) -> Offer:
    from unionfs.api import suggestions

    return Offer((name, "") for name in suggestions.kept_changes(place.store))


_MOUNT_OPTIONS = (
    "lowerdir=", "upperdir=", "workdir=", "volatile", "nosuid", "nodev", "noexec", "noatime", "ro", "allow_other",
    "metacopy=on", "index=off", "redirect_dir=off", "userxattr", "uidmapping=", "gidmapping=", "squash_to_uid=",
    "squash_to_gid=", "squash_to_root", "xattr_permissions=1", "xattr_permissions=2",
)  # fmt: skip


def _mount_options(place: Place) -> Offer:
    done, comma, last = place.word.rpartition(",")
    name, equals, value = last.partition("=")
    if equals and name in ("lowerdir", "upperdir", "workdir"):
        before = value.rpartition(":")[0] + ":" if ":" in value else ""
        return Offer((), "directories", f"{done}{comma}{name}={before}")
    return Offer((done + comma + option, "") for option in _MOUNT_OPTIONS)


def _filters(place: Place) -> Offer:
    return Offer(
        (word, "")
        for word in ("dangling=true", "dangling=false", "label=", "before=", "since=", "until=", "reference=")
    )


def _formats(place: Place) -> Offer:
    return Offer((word, "") for word in ("table", "json"))


def _instructions(place: Place) -> Offer:
    words = "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()
    return Offer((word + " ", "") for word in words)


def _registries(place: Place) -> Offer:
    from unionfs.api import suggestions

    return Offer((host, "") for host in suggestions.registries())


def _directories(place: Place) -> Offer:
    return Offer(paths="directories")


def _files(place: Place) -> Offer:
    return Offer(paths="files")


def _tars(place: Place) -> Offer:
    return Offer(paths="tars")


def _nothing(place: Place) -> Offer:
    return Offer()


#: By what the value is called in --help, without the brackets around it and the dots behind it; where one verb means
#: something else by it, with the verb before it.
VALUES: dict[str, Callable[[Place], Offer]] = {
    "MOUNTPOINT": _mounted,
    "mount MOUNTPOINT": _directories,
    "diff MOUNTPOINT": _mount_or_container,
    "commit MOUNTPOINT": _mount_or_container,
    "PATH": _mounted_or_path,
    "LAYER": _layer,
    "TREE": _tree,
    "REASON,": _reasons,
    "diff FORMAT": _diff_formats,
    "UPPER | LAYER": _directories,
    "UPPER": _directories,
    "WORK": _directories,
    "DIR": _directories,
    "DIRECTORY": _directories,
    "FILE": _files,
    "FILE|-": _tars,
    "SCRIPT": _files,
    "FILE.tar[.gz|.zst]": _tars,
    "IMAGE": _image,
    "NAME[:TAG]": _image,
    "NAME[:TAG|@DIGEST]": _image,
    "SOURCE[:TAG]": _image,
    "TARGET[:TAG]": _image,
    "REPOSITORY[:TAG]": _image,
    "LESSON": _lessons,
    "STACK": _stack,
    "IMAGE|MOUNTPOINT": _image_or_mount,
    "PERCENT%|SIZE": _nothing,
    "SIZE": _nothing,
    "FRACTION": _nothing,
    "CONTAINER": _container,
    "CONTAINER:]SOURCE|-": _container_path,
    "CONTAINER:]TARGET|-": _container_path,
    "inspect NAME": _container_or_image,
    "COMMAND [ARG]": _nothing,  # of the container's own
    "PROGRAM": _nothing,
    "NAME": _nothing,  # a new one
    "KEY[=VALUE]": _variables,
    "SOURCE:]TARGET[:ro": _directories,
    "ADDRESS:]PORT:]PORT[/udp": _nothing,
    "USER[:GROUP]": _nothing,
    "BYTES": _nothing,
    "OPTION": _security,
    "SIGNAL": _signals,
    "TIME": _nothing,
    "GLOB": _files,
    "OP": _nothing,
    "HOST[:PORT]": _registries,
    "mount NAME": _kept_changes,
    "image changes NAME": _kept_changes,
    "OPTS": _mount_options,
    "FILTER": _filters,
    "FORMAT": _formats,
    "INSTRUCTION": _instructions,
    "REGISTRY": _registries,
    "REGISTRY/]TERM": _nothing,
    "OS/ARCH[/VARIANT]": _nothing,
    "SECONDS": _nothing,
    "TEXT": _nothing,
    "N": _nothing,
}


_is_a_choice = re.compile(r"[a-z-]+(?:\|[a-z-]+)+").fullmatch


def source(verb: Command, parameter: Parameter) -> Callable[[Place], Offer] | None:
    """What finds the values of a parameter. None: of this name nothing is known."""
    words = parameter.choices or ((parameter.metavar or "").split("|") if _is_a_choice(parameter.metavar or "") else ())
    if words:
        return lambda place: Offer((word, "") for word in words)
    name = (parameter.metavar or "").removesuffix("...")
    own = verb.path.partition(" ")[2]
    for short in (name, name.strip("[]()")):
        find = VALUES.get(f"{own} {short}") or VALUES.get(short)
        if find is not None:
            return find
    return None


# the place ------------------------------------------------------------------------------------------------------------
def find_place(words: Sequence[str]) -> Place | None:
    """The place of the last word, which is begun or empty. None: nobody knows such a verb or option."""
    *before, word = words
    verb, store = root(), None
    found: list[str] = []
    options: dict[str, Parameter] = {}
    pending: tuple[str, Parameter] | None = None
    ended = False
    for i, one in enumerate(words):
        options = options or {name: option for option in verb.options for name in option.spelled}
        last = i == len(before)
        if pending is not None:
            if last:
                return Place(verb, pending[1], word, found, store)
            store = one if pending[0] == "--store" else store
            pending = None
        elif not ended and one == "--" and not last:
            ended = True
        elif not ended and one.startswith("-") and (len(one) > 1 or last):
            name, equals, value = one.partition("=")
            if last:
                return _option_place(verb, options.get(name) if equals else None, word, name + equals, found, store)
            pending = _value_awaited(one, options)
            store = value if name == "--store" and equals else store
        elif last:
            break
        elif verb.is_group:
            below = verb.verb(one)
            if below is None:
                return None
            verb, options = below, {}
        else:
            found.append(one)
            ended = ended or not verb.takes_options_anywhere
    return Place(verb, _argument(verb, len(found)), word, found, store)


def _value_awaited(word: str, options: dict[str, Parameter]) -> tuple[str, Parameter] | None:
    """The option of which the value comes in the next word: `--upper`, `-u`, `-fu`; not `--upper=x` nor `-ux`."""
    if word.startswith("--"):
        option = options.get(word)
        return None if option is None or option.metavar is None else (word, option)
    for i, letter in enumerate(word[1:], 1):
        option = options.get(f"-{letter}")
        if option is None:
            return None
        if option.metavar is not None:
            return (f"-{letter}", option) if i == len(word) - 1 else None
    return None


def _option_place(
    verb: Command, option: Parameter | None, word: str, before: str, found: list[str], store: str | None
) -> Place | None:
    """An option that is begun, or `--option=value` with a value that is."""
    if "=" not in word:
        return Place(verb, None, word, found, store)
    return None if option is None else Place(verb, option, word.removeprefix(before), found, store)


def _argument(verb: Command, number: int) -> Parameter | None:
    if number < len(verb.arguments):
        return verb.arguments[number]
    return verb.arguments[-1] if verb.arguments and verb.arguments[-1].many else None


def offer(place: Place) -> Offer:
    """All that may stand there, begun or not."""
    parameter = place.parameter
    if parameter is not None:
        find = source(place.verb, parameter)
        return Offer(paths="files") if find is None else find(place)
    if place.word.startswith("-"):
        # Both spellings of one option are one candidate where its long one fits.
        pairs = [(name, option.help) for option in place.verb.options for name in option.spelled]
        return Offer((name, help) for name, help in pairs if name.startswith("--") or len(place.word) == 1)
    return Offer((verb.name, verb.summary) for verb in place.verb.verbs())


# bash -----------------------------------------------------------------------------------------------------------------
class Line(NamedTuple):
    """A command line of bash up to the cursor. `quote`: the one that the last word is open in. `redirected`: the last
    word is the file of a redirection."""

    words: list[str]
    quote: str = ""
    redirected: bool = False


def split(line: str) -> Line:
    """The words, without quotes. Of what only bash could expand the text is taken as it stands."""
    words: list[str] = [""]
    quote, begun, escaped = "", False, False
    targets: set[int] = set()
    for character in line:
        if escaped or (quote and character not in (quote, "\\")) or (quote == "'" and character == "\\"):
            words[-1] += character
            escaped = False
        elif character == "\\":
            escaped = begun = True
        elif quote:
            quote = ""
        elif character in "'\"":
            quote, begun = character, True
        elif character in " \t\n":
            if begun:
                words.append("")
            begun = False
        elif character in "<>":
            if begun and not words[-1].isdigit():
                words.append("")
            words[-1], begun = "", False
            targets.add(len(words) - 1)
        else:
            words[-1] += character
            begun = True
    last = len(words) - 1
    return Line([word for i, word in enumerate(words) if i == last or i not in targets], quote, last in targets)


_SPECIAL = re.compile(r"[^A-Za-z0-9_@%+=:,./^~-]")


def quoted(word: str, quote: str) -> str | None:
    """A candidate as bash is to read it, in a word that was begun with `quote`. None where it cannot be."""
    if quote == "'":
        return None if "'" in word else word
    if quote == '"':
        return re.sub(r'[\\"$`]', r"\\\g<0>", word)
    return _SPECIAL.sub(r"\\\g<0>", word)


_TAR = re.compile(r".*\.(?:tar|tar\..*|tgz|tzst)", re.DOTALL).fullmatch


def paths(kind: str, begun: str) -> Candidates:
    """Those of a kind that begin so; directories with a slash behind them, hidden ones where a dot is there."""
    head = begun[: begun.rfind("/") + 1]
    with os.scandir(os.path.expanduser(head) or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith(begun[len(head) :]) or (entry.name[0] == "." and begun == head):
                continue
            if entry.is_dir():
                yield f"{head}{entry.name}/", ""
            elif kind == "files" or (kind == "tars" and _TAR(entry.name)):
                yield head + entry.name, ""


def _for_bash(breaks: str, text: str) -> list[str]:
    """Bash replaces what comes behind the last of its `breaks` in a word, so only that is answered."""
    line = split(text)
    word = line.words[-1]
    made = Offer(paths="files") if line.redirected else _offered(line.words[1:])
    found = list(_fitting(made, word))
    if made.paths != "-":
        before = len(made.prefix)
        found += [(word[:before] + path, "") for path, _ in paths(made.paths, word[before:])]
    counted = 0 if line.quote else sum(word.count(one) for one in ":=" if one in breaks)
    lines = (quoted(value, line.quote) for value, _ in found if value.isprintable())
    return ["- 0", *dict.fromkeys(_behind(one, breaks, counted) for one in lines if one is not None)]


def _behind(text: str, breaks: str, count: int) -> str:
    """What comes behind so many of the breaks."""
    ends = [i + 1 for i, character in enumerate(text) if character in ":=" and character in breaks]
    return text[ends[count - 1] :] if count else text


# the answer -----------------------------------------------------------------------------------------------------------
def _offered(words: Sequence[str]) -> Offer:
    """What may stand in the place of the last word, written out from the beginning of the word."""
    place = find_place(words) if words else None
    if place is None:
        return Offer()
    made = offer(place)
    before = words[-1].removesuffix(place.word)  # --option=
    return Offer(((before + value, help) for value, help in made.candidates), made.paths, before + made.prefix)


def _fitting(made: Offer, word: str) -> Candidates:
    seen: set[str] = set()
    for value, help in made.candidates:
        if value.startswith(word) and value.isprintable() and value not in seen:
            seen.add(value)
            yield value, " ".join(help.split())


def answer(shell: str, *given: str) -> list[str]:
    """The lines of the answer. Raises whatever goes wrong."""
    if shell == "bash":
        return _for_bash(*given)
    made = _offered(given)
    lines = [f"{value}\t{help}" if help else value for value, help in _fitting(made, given[-1])]
    return [f"{made.paths} {len(made.prefix)}", *lines]


def main(argv: Sequence[str]) -> int:
    """`argv`: the shell, and what it gives. Nothing is ever said but the answer."""
    try:
        lines = answer(*argv)
    except Exception:  # whoever then runs the command is told what is wrong; here there is no place for it
        lines = ["- 0"]
    sys.stdout.buffer.write(b"".join(os.fsencode(line) + b"\n" for line in lines))
    sys.stdout.buffer.flush()
    return 0
