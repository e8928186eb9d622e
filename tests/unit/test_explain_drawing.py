"""Pictures as texts: colours that can be read, names that cannot do anything, what a small picture leaves out."""

from __future__ import annotations

import functools
import json
import re
from contextlib import suppress
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from unionfs.api.layer_trees import LayerHeading, LayerTree, draw_layers, fold_rows
from unionfs.explain.colours import DARK, LIGHT, Scheme, hue
from unionfs.explain.layer_tree import TreeRow, layer_tree
from unionfs.explain.script import parse
from unionfs.explain.simulator import Simulator
from unionfs.explain.text import columns, cut, fit, shown, size
from unionfs.layers.memory import MemoryDisk, MemoryLayer
from unionfs.overlay import UnionFilesystem

#: What somebody could call a file who wants to do something in the page, the picture or the terminal of another.
HOSTILE = [
    b"<script>hacked=1</script>",
    b"</script><script>hacked=1;<!--",
    b"]]><svg onload=hacked=1>",
    b'" onmouseover="hacked=1',
    b"'><img src=x onerror=hacked=1>",
    b"{{script}}{{data}}",
    b"</title></style><script>hacked=1</script>",
    b"__proto__",
    b"&lt;b&gt;&amp;",
    b"\x01\x1b[31m\x7f\n\r\t\x0b",
    b"\xff\xfe\xc0\xaf",
    "gnp.\u202eexe.\u2066x\u2069".encode(),
    "\u2028\u2029\ufeff\u200b".encode(),
    "\U000e0001\ufffe".encode(),
    "\u0300\u0301combining".encode(),
    "汉字 日本語 한국어 👩‍👩‍👧".encode(),
    "שלום العربية".encode(),
]


def memory_tree(names: list[bytes], layers: int = 2, title: str = "x", about: str = "") -> LayerTree:
    """The same names in each of some layers, a slash being in a path, and the same as targets of symbolic links."""
    made = [MemoryLayer(MemoryDisk(lambda: 0, number + 1), f"layer{number}") for number in range(layers)]
    for layer in made:
        layer.mkdir(b"d", 0o755)
        for at, name in enumerate(names):
            *way, last = name.split(b"/")
            directory = b"d"
            for part in way:
                directory += b"/" + part
                with suppress(FileExistsError):
                    layer.mkdir(directory, 0o755)
            layer.create(directory + b"/" + last, 0o644).close()
            layer.symlink(b"d/-> %d" % at, name)
    fs = UnionFilesystem(made)
    try:
        rows = layer_tree(fs)
    finally:
        fs.close()
    headings = [LayerHeading(number, f"{title}{number}", title.encode(), about) for number in range(1, layers + 1)]
    return LayerTree(title, tuple(headings), tuple(rows))


@functools.cache
def script_tree(text: str) -> LayerTree:
    running = Simulator()
    for command in parse(text.splitlines()):
        running.run(command)
    assert running.world.fs is not None
    rows = layer_tree(running.world.fs)
    names = ("upper", *running.world.lowers)
    return LayerTree("script", tuple(LayerHeading(at, name) for at, name in enumerate(names)), tuple(rows))


# colours --------------------------------------------------------------------------------------------------------------
def luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_the_standard_does() -> None:
    assert contrast("#000000", "#ffffff") == 21
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize(("scheme", "dark"), [(LIGHT, False), (DARK, True)])
def test_every_text_can_be_read_on_what_it_stands_on(scheme: Scheme, dark: bool) -> None:
    for ground in (scheme.ground, scheme.stripe, scheme.chosen):
        for text in (scheme.ink, scheme.dim, scheme.gone, scheme.accent):
            assert contrast(text, ground) >= 4.5, (text, ground)
        for mark in (scheme.copied, scheme.moved, scheme.edge):
            assert contrast(mark, ground) >= 3, (mark, ground)
    assert contrast(scheme.gone, scheme.gone_fill) >= 4.5
    assert contrast(scheme.ink, scheme.gone_fill) >= 4.5
    assert contrast(scheme.ink, scheme.found) >= 4.5
    assert contrast(scheme.ground, scheme.accent) >= 4.5
    for number in range(500):
        fill, border, text = hue(number, dark)
        assert contrast(text, fill) >= 4.5, number
        assert contrast(border, scheme.ground) >= 3, number
        assert contrast(border, scheme.stripe) >= 3, number


def test_neighbouring_layers_have_different_colours() -> None:
    for number in range(200):
        assert len({hue(number + near, False).border for near in range(4)}) == 4


# names ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"plain.txt", "plain.txt"),
        ("größe 漢字".encode(), "größe 漢字"),
        (b"\x00\x1b\x7f", "\\x00\\x1b\\x7f"),
        (b"\xff", "\\xff"),
        ("\x85\xa0".encode(), "\\x85\\xa0"),
        ("a\u202eb".encode(), "a\\u202eb"),
        ("\U000e0001".encode(), "\\U000e0001"),
        ("\udcff\n", "\\xff\\x0a"),
    ],
)
def test_what_is_not_seen_in_a_name_is_written_out(name: bytes | str, said: str) -> None:
    assert shown(name) == said


def test_widths_are_those_of_a_terminal() -> None:
    assert (columns("abc"), columns("漢字"), columns("e\u0301")) == (3, 4, 1)
    assert (fit("漢字", 3), cut("abcdef", 4), fit("ab", 4)) == ("漢…", "abc…", "ab  ")
    assert (size(0), size(999), size(1000), size(4_260_000)) == ("0B", "999B", "1kB", "4.26MB")


class _Elements(HTMLParser):
    """What a browser would make of a page, as far as elements go."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes = self.found[-1]
            key = attributes.get("id") or tag
            self.texts[key] = self.texts.get(key, "") + data


def hostile() -> LayerTree:
    return memory_tree(HOSTILE, title=" ".join(map(shown, HOSTILE)) + "\x1b\u202e</title>", about="</script><b>\x00")


def test_hostile_names_change_nothing_in_a_page() -> None:
    page = _Elements()
    page.feed(draw_layers(hostile(), "html"))
    plain = _Elements()
    plain.feed(draw_layers(memory_tree([b"a"]), "html"))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in plain.found]
    assert [sorted(attributes) for _, attributes in page.found] == [sorted(attributes) for _, attributes in plain.found]
    names = {row[1] for row in json.loads(page.texts["data"])["rows"]}
    assert {shown(part) for name in HOSTILE for part in name.split(b"/")} <= names


def test_a_page_is_ascii_where_names_are_and_asks_for_nothing() -> None:
    text = draw_layers(hostile(), "html")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert data.isascii() and not set("<>&") & set(data)
    page = _Elements()
    page.feed(text)
    assert not [
        attributes for _, attributes in page.found if {"src", "href", "srcset", "action", "data"} & set(attributes)
    ]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|innerHTML|document\.write|eval\(", text)
    (policy,) = [a["content"] for tag, a in page.found if tag == "meta" and "http-equiv" in a]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.parametrize("limit", [None, 5])
def test_hostile_names_change_nothing_in_a_picture(limit: int | None) -> None:
    text = draw_layers(hostile(), "svg", limit=limit)
    root = ElementTree.fromstring(text)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "defs", "marker", "rect", "path", "g", "text"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or name.endswith("href") or name == "style"}
    assert all(character.isprintable() or character == "\n" for character in text)


def test_pictures_are_the_same_every_time() -> None:
    for form in ("svg", "html"):
        assert draw_layers(hostile(), form) == draw_layers(hostile(), form)


# what is left out -----------------------------------------------------------------------------------------------------
LARGE = "\n".join(
    [
        "layer base",
        *(f"write usr/doc/file{number:03} x" for number in range(100)),
        *(f"write etc/conf{number} x" for number in range(3)),
        *(f"write old/file{number} x" for number in range(20)),
        "mount",
        "append etc/conf1 y",
        "rm usr/doc/file050",
        "rm -r old",
        "mkdir new",
        *(f"write new/file{number} x" for number in range(30)),
    ]
)


def kept(tree: LayerTree, limit: int) -> dict[str, tuple[int, int]]:
    return {line.row.path.decode(): (line.folded, line.notable) for line in fold_rows(tree.rows, limit)}


def test_what_is_changed_comes_first_and_directories_say_how_much_is_left_out() -> None:
    tree = script_tree(LARGE)
    assert kept(tree, 12) == {
        "": (0, 0),
        "etc": (0, 0),
        "etc/conf0": (0, 0),
        "etc/conf1": (0, 0),
        "etc/conf2": (0, 0),
        "new": (30, 0),
        "old": (20, 0),
        "usr": (0, 0),
        "usr/doc": (99, 0),
        "usr/doc/file050": (0, 0),
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 50, 100])
def test_no_more_rows_than_asked_for_and_none_is_forgotten(limit: int) -> None:
    tree = script_tree(LARGE)
    lines = fold_rows(tree.rows, limit)
    assert len(lines) <= limit
    assert len(lines) + sum(line.folded for line in lines) == len(tree.rows)
    paths = {line.row.path for line in lines}
    assert all(path.rpartition(b"/")[0] in paths for path in paths)


def test_changes_that_there_was_no_room_for_are_counted() -> None:
    lines = "\n".join(["layer base", *(f"write d/f{number} x" for number in range(20)), "mount"])
    tree = script_tree(lines + "\n" + "\n".join(f"rm d/f{number}" for number in range(20)))
    assert kept(tree, 6)["d"] == (16, 16)
    assert "… 16 more, 16 changed" in draw_layers(tree, "svg", limit=6)


def test_all_is_shown_where_there_is_room() -> None:
    tree = script_tree(LARGE)
    assert [line.row for line in fold_rows(tree.rows, len(tree.rows))] == list(tree.rows)
    assert len(fold_rows(tree.rows)) == len(tree.rows)


def test_a_page_has_as_much_as_there_is_room_for_and_says_how_much_is_not_in_it() -> None:
    tree = script_tree(LARGE)
    page = _Elements()
    page.feed(draw_layers(tree, "html", limit=60))
    data = json.loads(page.texts["data"])
    assert (len(data["rows"]), data["left_out"]) == (60, len(tree.rows) - 60)
    names = [row[1] for row in data["rows"]]
    assert {"conf1", "file050", "new"} <= set(names)  # what is changed is there
    for at, row in enumerate(data["rows"]):
        inside = next((n for n, other in enumerate(data["rows"][at + 1 :]) if other[0] <= row[0]), 59 - at)
        assert row[5] == inside
    cut = {row[1] for row in data["rows"] if len(row) > 7 and "cut" in row[7]}
    assert "doc" in cut and "etc" not in cut


def test_of_many_layers_a_picture_has_those_with_something_of_their_own() -> None:
    made = [f"layer l{number}\nwrite d/f{number} x" for number in range(30)]
    tree = script_tree("\n".join([*made, "mount", "rm d/f3", "append d/f7 y"]))
    text = draw_layers(tree, "svg", limit=4)
    assert "not drawn, with nothing of their own in these rows: 28 layers" in text
    assert [text.count('class="bar"'), draw_layers(tree, "svg").count('class="bar"')] == [3, 31]


def test_rows_of_a_picture_are_in_order_and_each_once() -> None:
    rows: list[TreeRow] = [line.row for line in fold_rows(script_tree(LARGE).rows, 20)]
    paths = [row.path.split(b"/") for row in rows]
    assert paths == sorted(paths) and len({row.path for row in rows}) == len(rows)
