"""The manual pages in share/man, made of what the commands say of themselves and of docs/reference.md.

    python -m cli.manual [DIRECTORY]     writes man1/unionfs.1, man1/unionfs-image.1, man8/unionfs-mount.8

Works in the source tree, where docs/ is; what is installed has the pages. A test compares them with what this makes.
The macros are those of man(7), as both groff and mandoc have them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from unionfs import __version__
from unionfs.api import mount_helper

from .commands import Command, Parameter, root
from .manual_texts import (
    DATE,
    ENVIRONMENT,
    ENVIRONMENT_OF_THE_PROGRAM,
    EXAMPLES,
    EXIT_STATUS,
    EXIT_STATUS_OF_THE_PROGRAM,
    FILES,
    IMAGE,
    MOUNT_PROGRAM,
    UNIONFS,
    Page,
)

PROJECT = Path(__file__).resolve().parents[1]
PAGES = PROJECT / "share/man"

# roff -----------------------------------------------------------------------------------------------------------------
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}


def escaped(text: str) -> str:
    """Text that comes out as it is, also at the beginning of a line."""
    shown = "".join(
        _ESCAPES.get(one, one if one.isascii() else f"\\[u{ord(one):04X}]") for one in " ".join(text.split())
    )
    return rf"\&{shown}" if shown.startswith(".") else shown


def bold(text: str) -> str:
    return rf"\fB{escaped(text)}\fR"


def italic(text: str) -> str:
    return rf"\fI{escaped(text)}\fR"


def prose(text: str) -> str:
    """A paragraph in which `code` is bold."""
    parts = [escaped_inside(part) if i % 2 == 0 else bold(part) for i, part in enumerate(text.split("`"))]
    joined = "".join(parts)
    return rf"\&{joined}" if joined.startswith((".", "'")) else joined


def escaped_inside(part: str) -> str:
    """As `escaped`, with the blanks at both ends."""
    middle = escaped(part)
    if not part.strip():
        return " " if part else ""
    return (" " if part[0].isspace() else "") + middle + (" " if part[-1].isspace() else "")


def sentence(text: str) -> str:
    """What is written as a cell of a table."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def definition(term: str, text: str) -> Iterator[str]:
    yield from (".TP", term, prose(text) if text else r"\&")


def example(lines: Sequence[str]) -> Iterator[str]:
    yield from (".PP", ".RS 4", ".nf")
    for line in lines:
        kept = re.sub(r"^ +", lambda blanks: "\\ " * len(blanks[0]), line)
        shown = "".join(_ESCAPES.get(one, one) for one in kept.lstrip("\\ "))
        yield "\\ " * (kept.count("\\ ") if line.startswith(" ") else 0) + shown
    yield from (".fi", ".RE")


# commands -------------------------------------------------------------------------------------------------------------
def synopsis(verb: Command) -> str:
    """One line: `unionfs diff [OPTION]... [MOUNTPOINT]`."""
    words = [bold(verb.path)]
    if len(verb.options) > 1:
        words.append(rf"[{italic('OPTION')}]...")
    if verb.is_group:
        words += [italic("COMMAND"), rf"[{italic('ARGUMENT')}]..."]
    return " ".join(words + [_argument(one) for one in verb.arguments])


def _argument(one: Parameter) -> str:
    name = (one.metavar or "").removesuffix("...")
    if name.startswith("[") and name.endswith("]") and "[" not in name[1:]:
        name = name[1:-1]
    if name.startswith("["):  # of several words, each with its own brackets
        return italic(one.metavar or "")
    shown = italic(name) + ("..." if one.many and "..." not in name else "")
    return shown if one.required else f"[{shown}]"


def option(one: Parameter) -> Iterator[str]:
    spelled = re.sub(r"[^ ,/]+", lambda word: bold(word[0]) if word[0].startswith("-") else italic(word[0]), one.usage)
    yield from definition(spelled, one.help)


def verb(command: Command) -> Iterator[str]:
    """A subsection: how it is called, what it does, its arguments and options."""
    name = command.path.partition(" ")[2]
    yield f'.SS "{escaped(name)}"'
    yield synopsis(command)
    for paragraph in command.help.split("\n\n"):
        yield from (".PP", prose(paragraph))
    for argument in command.arguments:
        help = re.sub(r" *\[required\]", "", argument.help)
        if help:
            yield from definition(_argument(argument).strip("[]"), help)
    for one in command.options:
        if "--help" not in one.spelled:
            yield from option(one)


def _section(title: str) -> str:
    return f'.SH "{title}"'


def _title(name: str, number: int, summary: str) -> Iterator[str]:
    yield r".\" Made by cli/manual.py; change what it is made of."
    yield f'.TH "{name.upper()}" "{number}" "{DATE}" "unionfs {__version__}" "unionfs"'
    yield from (_section("NAME"), rf"{escaped(name)} \- {escaped(summary)}")


def _pairs(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for term, text in pairs:
        yield from definition(bold(term), text)


def _page(lines: Sequence[str]) -> str:
    """A heading begins a paragraph by itself."""
    kept = (line for i, line in enumerate(lines) if line != ".PP" or not lines[i - 1].startswith(".S"))
    return "".join(f"{line}\n" for line in kept)


def _end(page: Page) -> Iterator[str]:
    own = page is MOUNT_PROGRAM
    yield from (_section("EXIT STATUS"), *_pairs(EXIT_STATUS_OF_THE_PROGRAM if own else EXIT_STATUS))
    yield _section("ENVIRONMENT")
    yield from _pairs([pair for pair in ENVIRONMENT if not own or pair[0] in ENVIRONMENT_OF_THE_PROGRAM])
    yield from (_section("FILES"), *_pairs(FILES[:3] if own else FILES))
    yield _section("EXAMPLES")
    for words, lines in EXAMPLES[page.name]:
        yield from (".PP", prose(words), *example(lines))
    yield from (_section("SEE ALSO"), ",\n".join(rf"\fB{escaped(name)}\fR({number})" for name, number in page.see))


def of_commands(page: Page, group: Command) -> str:
    """The page of a group: its verbs, each with all that its --help says."""
    lines = [*_title(page.name, 1, page.summary), _section("SYNOPSIS"), synopsis(group), _section("DESCRIPTION")]
    for paragraph in page.about.strip().split("\n\n"):
        lines += [".PP", prose(paragraph)]
    lines += [_section("OPTIONS"), *(line for one in group.options for line in option(one))]
    lines.append(_section("COMMANDS"))
    for command in group.verbs():
        if command.is_group:
            lines += [f'.SS "{escaped(command.name)}"', synopsis(command), ".PP", prose(command.help)]
            lines += [".PP", rf"See \fB{escaped('-'.join(command.path.split()))}\fR(1)."]
        else:
            lines += verb(command)
    if group.path == "unionfs":
        lines += mount_options()
    return _page([*lines, *_end(page)])


# the mount program ----------------------------------------------------------------------------------------------------
def mount_options() -> Iterator[str]:
    """The tables of docs/reference.md."""
    section = (PROJECT / "docs/reference.md").read_text().partition("## Mount options\n")[2].partition("\n## ")[0]
    yield _section("MOUNT OPTIONS")
    for line in section.splitlines():
        if line.startswith(("| `-o`", "|---")) or not line.strip():
            continue
        if line.startswith("|"):
            names, text = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:3])
            terms = [bold(name) for name in re.findall(r"`([^`]*)`", names)]
            yield from definition(", ".join(terms), sentence(text))
        else:
            yield from (".PP", prose(line))


def usage_of_the_program() -> list[str]:
    """What `unionfs-mount --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        mount_helper.main(["--help"])
    return printed.getvalue().splitlines()


def of_the_program(page: Page) -> str:
    lines = [*_title(page.name, 8, page.summary), _section("SYNOPSIS")]
    usage = usage_of_the_program()
    for line in usage:
        if "MOUNTPOINT" in line:
            call = re.split(r" {3,}", line.removeprefix("usage:").strip())[0]
            lines += [italic(call).replace("unionfs\\-mount", r"\fBunionfs\-mount\fI", 1), ".br"]
    lines = [*lines[:-1], _section("DESCRIPTION")]
    for paragraph in page.about.strip().split("\n\n"):
        lines += [".PP", prose(paragraph)]
    lines.append(_section("OPTIONS"))
    for line in usage:
        found = re.fullmatch(r" {4}(\S.*?) {2,}(\S.*)", line)
        if found is not None:
            lines += definition(bold(found[1]), sentence(found[2]))
    return _page([*lines, *mount_options(), *_end(page)])


# all of them ----------------------------------------------------------------------------------------------------------
def pages() -> dict[str, str]:
    """What belongs into share/man, by file name."""
    top = root()
    image = top.verb("image")
    assert image is not None
    return {
        "man1/unionfs.1": of_commands(UNIONFS, top),
        "man1/unionfs-image.1": of_commands(IMAGE, image),
        "man8/unionfs-mount.8": of_the_program(MOUNT_PROGRAM),
    }


def main(argv: Sequence[str]) -> int:
    if argv and argv[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    directory = Path(argv[0]) if argv else PAGES
    for name, text in pages().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    sys.exit(main(sys.argv[1:]))
