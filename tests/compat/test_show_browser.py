"""The pages and pictures of `unionfs show` in a browser: what is drawn, what can be read, what a person does there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.compat.browser import Browser, Page, Rgb, browser
from tests.requirements import requires
from tests.unit.test_explain_drawing import HOSTILE, hostile, script_tree
from unionfs.api.layer_trees import draw_layers
from unionfs.explain.colours import DARK, LIGHT, Scheme
from unionfs.explain.text import shown

pytestmark = requires("chromium")

SCRIPT = """\
layer base
write etc/motd "Welcome."
write etc/passwd "root:x:0:0"
write srv/site/index.html "hello"
write var/cache/old "x"
layer program
write bin/app "#!program"
write etc/motd "Hello."
layer settings
write etc/app.conf "debug = no"
mount -o metacopy
append etc/motd "Changed."
rm etc/passwd
mv srv/site srv/www
rm -r var/cache
mkdir var/cache
chmod 0700 bin/app
"""

#: Many layers and many names: a page that is scrolled.
LARGE = "\n".join(
    [
        *(f"layer l{number}\nwrite opt/app{number}/file x\nwrite etc/conf{number} x" for number in range(24)),
        *(f"write usr/doc/file{number:03} x" for number in range(300)),
        "mount",
        "append etc/conf7 y",
        "rm usr/doc/file150",
    ]
)

Pages = dict[str, Path]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    directory = tmp_path_factory.mktemp("pages")
    trees = {"script": script_tree(SCRIPT), "large": script_tree(LARGE), "hostile": hostile()}
    found: Pages = {}
    for name, tree in trees.items():
        found[name] = directory / f"{name}.html"
        found[f"{name}.svg"] = directory / f"{name}.svg"
        draw_layers(tree, "html", output=found[name])
        draw_layers(tree, "svg", limit=60, output=found[f"{name}.svg"])
    return found


@pytest.fixture
def page(chromium: Browser, pages: Pages) -> Iterator[Page]:
    with chromium.page(pages["script"]) as made:
        yield made
        assert made.messages == []
        assert made.requests == [pages["script"].as_uri()]


def labels(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('.row')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"
        ".map(row => row.querySelector('.label').textContent)"
    )
    return found


def status(page: Page) -> str:
    return str(page.evaluate("document.getElementById('status').textContent"))


def details(page: Page) -> str:
    """What the history says, as it is seen."""
    return str(
        page.evaluate("document.getElementById('details').hidden ? '' : document.getElementById('details').innerText")
    )


ALL = [
    "/", "bin/", "app", "etc/", "app.conf", "motd", "passwd", "srv/", "site/", "index.html", "www/", "index.html",
    "var/", "cache/", "old",
]  # fmt: skip


# what a person does ---------------------------------------------------------------------------------------------------
def test_a_small_tree_is_open(page: Page) -> None:
    assert labels(page) == ALL
    assert status(page) == "15 rows"
    assert page.evaluate("document.title") == "script"


def test_search_shows_what_matches_and_the_way_there(page: Page) -> None:
    page.press("/")
    page.write("MOTD")
    assert labels(page) == ["/", "etc/", "motd"]
    assert status(page) == "1 of 15 paths match"
    assert page.evaluate("document.querySelector('mark').textContent") == "motd"
    page.press("Escape")
    assert labels(page) == ALL
    page.press("/")
    page.write("srv/w")
    assert labels(page) == ["/", "srv/", "www/", "index.html"]
    page.write("nothing")
    assert labels(page) == []
    assert page.evaluate("document.querySelector('.nothing').textContent") == "No path matches."


def test_filters_show_only_what_is_deleted_or_moved(page: Page) -> None:
    page.click("#filters button", "deleted")
    assert labels(page) == ["/", "etc/", "passwd", "srv/", "site/", "var/", "cache/", "old"]
    page.click("#filters button", "moved")
    assert "www/" in labels(page)
    page.click("#filters button", "deleted")
    assert labels(page) == ["/", "srv/", "www/"]
    assert page.evaluate("document.querySelector('[aria-pressed=true]').textContent") == "moved1"
    page.press("Escape")
    assert labels(page) == ALL


def test_a_click_tells_the_history_of_a_path(page: Page) -> None:
    assert details(page) == ""
    page.click(".row", "motd")
    told = details(page)
    for words in (
        "/etc/motd",
        "file of upper",
        "hidden by /etc/motd in upper",
        "copied up from /etc/motd in program",
        "file of 16 B",
        "file of 7 B",
        "0644",
    ):
        assert words in told, told
    assert told.index("upper") < told.index("program") < told.index("base")
    page.click(".row", "passwd")
    assert "not there, hidden by the whiteout /etc/passwd in upper" in details(page)
    page.click(".row", "app")
    assert "metacopy: its data is further down" in details(page)
    page.click(".row", "www")
    assert "redirect: goes on below as site" in details(page)
    page.click(".row", "cache")
    assert "opaque: what lies below is not seen" in details(page)
    page.press("Escape")
    assert details(page) == ""


def test_a_link_in_the_history_leads_to_its_row(page: Page) -> None:
    page.click(".row", "old")
    page.click("#details button.path", "/var/cache")
    assert page.evaluate("document.querySelector('.selected .label').textContent") == "cache/"
    assert "/var/cache" in details(page).split("\n")


def test_a_layer_says_what_it_has(page: Page) -> None:
    page.click("#head button", "base")
    told = details(page)
    assert "layer 3" in told and "hidden" in told


def test_all_of_it_goes_by_keyboard(page: Page) -> None:
    page.evaluate("document.getElementById('grid').focus()")

    def current() -> Any:
        return page.evaluate("document.querySelector('.row.current .label').textContent")

    page.press("ArrowDown", "ArrowDown")
    assert current() == "app"
    page.press("ArrowLeft")
    assert current() == "bin/"
    page.press("ArrowLeft")
    assert labels(page)[:3] == ["/", "bin/", "etc/"]
    page.press("ArrowRight", "ArrowRight")
    assert (labels(page), current()) == (ALL, "app")
    page.press("Enter")
    assert "/bin/app" in details(page)
    page.press("ArrowDown")  # the history goes along
    assert "/etc" in details(page).split("\n")
    page.press("Escape", "End")
    assert (details(page), current()) == ("", "old")
    page.press("Home")
    assert current() == "/"
    assert page.evaluate("document.getElementById(grid.getAttribute('aria-activedescendant')).ariaLevel") == "1"
    page.press("/")
    page.write("app.conf")
    page.press("Enter")
    assert current() == "app.conf"


def test_tab_stops_once_in_the_heading_and_arrows_go_on(page: Page) -> None:
    page.evaluate("document.querySelector('#head button').focus()")
    page.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert page.evaluate("document.activeElement.querySelector('.title').textContent") == "settings"
    assert page.evaluate("document.querySelectorAll('#head [tabindex=\"0\"]').length") == 1


def test_open_and_close_all(page: Page) -> None:
    page.click("button", "Close all")
    assert labels(page) == ["/", "bin/", "etc/", "srv/", "var/"]
    page.click("button", "Open all")
    assert labels(page) == ALL
    page.click(".twist", "▾")
    assert labels(page) == ["/"]


def test_an_address_leads_to_a_path(chromium: Browser, pages: Pages) -> None:
    with chromium.page(pages["large"], part="/opt/app3/file") as page:
        assert page.evaluate("document.querySelector('.selected .label').textContent") == "file"
        assert "/opt/app3/file" in details(page)
    with chromium.page(pages["script"], part="%") as page:
        assert (labels(page), page.messages) == (ALL, [])


def test_what_cannot_be_looked_up_says_why(chromium: Browser, tmp_path: Path) -> None:
    tree = script_tree(SCRIPT)
    rows = [
        replace(row, state="broken", failure="Input/output error", items=(), which=replace(row.which, kind=None))
        if row.name == b"motd"
        else row
        for row in tree.rows
    ]
    draw_layers(replace(tree, rows=tuple(rows)), "html", output=tmp_path / "broken.html")
    with chromium.page(tmp_path / "broken.html") as page:
        assert page.evaluate("document.querySelector('.failure').textContent") == "Input/output error"
        page.click(".row", "motd")
        assert "it cannot be looked up: Input/output error" in details(page)
        page.click("#filters button", "broken")
        assert labels(page) == ["/", "etc/", "motd"]
        assert (page.evaluate(LAYOUT), page.evaluate(CONTRAST)[1], page.messages) == ([], [], [])


# many layers, many names ----------------------------------------------------------------------------------------------
def test_what_only_one_layer_has_is_folded_and_can_be_unfolded(chromium: Browser, pages: Pages) -> None:
    with chromium.page(pages["large"]) as page:
        shown_first = labels(page)
        assert "file150" in shown_first and "conf7" in shown_first
        assert "299 more, only in l23" in shown_first
        page.click(".fold", "299 more")
        assert "file000" in labels(page)
        assert page.evaluate("document.querySelectorAll('.row').length") < 80  # only what can be seen is there
        page.evaluate("document.getElementById('grid').focus()")
        page.press("End")
        assert labels(page)[-1] == "file299"
        assert page.messages == []


def test_the_cell_that_decides_is_brought_into_sight(chromium: Browser, pages: Pages) -> None:
    """Of many layers it may be the last."""
    with chromium.page(pages["large"], width=700, height=600) as page:
        page.press("/")
        page.write("app0/file")
        page.press("Enter", "Enter")
        right, edge = page.evaluate(
            "[document.querySelector('.selected .cell:not(.seen)').getBoundingClientRect().right,"
            " document.getElementById('grid').getBoundingClientRect().right]"
        )
        assert "/opt/app0/file" in details(page)
        assert 300 < right < edge


# what it looks like ---------------------------------------------------------------------------------------------------
def is_colour(pixel: Rgb, colour: str) -> bool:
    """As near as blending rounds."""
    return all(abs(channel - int(colour[at : at + 2], 16)) <= 2 for channel, at in zip(pixel, (1, 3, 5), strict=True))


def box(page: Page, selector: str, row: str) -> dict[str, float]:
    """Of the first such element in the row with this label."""
    found: dict[str, float] = page.evaluate(
        f"""(() => {{
            const row = [...document.querySelectorAll('.row')]
                .find(row => row.querySelector('.label').textContent === {json.dumps(row)});
            return row.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON();
        }})()"""
    )
    return found


@pytest.mark.parametrize(("dark", "scheme"), [(False, LIGHT), (True, DARK)], ids=["light", "dark"])
def test_marks_are_drawn_in_the_colours_of_their_surroundings(
    chromium: Browser, pages: Pages, dark: bool, scheme: Scheme
) -> None:
    with chromium.page(pages["script"], dark=dark) as page:
        picture = page.screenshot()
        assert is_colour(picture.at(2, 2), scheme.ground)
        whiteout = box(page, ".whiteout", "passwd")
        middle = whiteout["y"] + whiteout["height"] / 2
        struck = [picture.at(x, middle) for x in range(int(whiteout["left"]) + 8, int(whiteout["right"]) - 8)]
        assert len(struck) > 50 and all(is_colour(pixel, scheme.gone) for pixel in struck)  # from end to end
        assert is_colour(picture.at(whiteout["right"] - 12, whiteout["y"] + 4), scheme.gone_fill)
        label = page.evaluate("getComputedStyle(document.querySelector('.gone .label')).textDecorationLine")
        assert label == "line-through"
        opaque = box(page, ".opaque", "cache/")
        assert is_colour(picture.at(opaque["right"] - 2, opaque["y"] + 10), scheme.ink)
        arrow = box(page, ".arrow", "motd")
        between = box(page, ".l0:not(.seen)", "motd")["right"] + 40
        assert arrow["left"] < between < arrow["right"]
        assert is_colour(picture.at(between, arrow["y"] + 5), scheme.copied)
        assert page.evaluate("document.querySelectorAll('#ways path').length") == 2
        hidden = box(page, ".hidden", "motd")
        assert is_colour(
            picture.at(hidden["right"] - 12, hidden["y"] + 4), scheme.ground
        )  # it has no colour of its own
        assert page.messages == []


#: The contrast of each text to what is behind it, as computed by the browser: [ratio, text] of those under 4.5.
CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const found = [];
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, box = element.getBoundingClientRect();
    if (!walker.currentNode.data.trim() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName) || box.width < 2) continue;
    let behind = element;
    while (behind && parse(getComputedStyle(behind).backgroundColor)[3] < 1) behind = behind.parentElement;
    const back = behind ? parse(getComputedStyle(behind).backgroundColor) : [255, 255, 255];
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(back)].sort((x, y) => y - x);
    texts++;
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data]);
  }
  return [texts, found];
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["script", "large", "hostile"])
def test_every_text_can_be_read(chromium: Browser, pages: Pages, name: str, dark: bool) -> None:
    with chromium.page(pages[name], dark=dark) as page:
        page.click(".row .label")
        page.press("/")
        page.write("a")
        texts, unreadable = page.evaluate(CONTRAST)
        assert texts > 50 and unreadable == []


#: Pairs of boxes in a row that overlap, and elements whose text leaves them.
LAYOUT = """(() => {
  const found = [];
  for (const row of [document.getElementById("head"), ...document.querySelectorAll(".row")]) {
    const boxes = [...row.children].filter(one => !one.matches(".arrow")).map(one => one.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5) found.push(row.textContent);
    }));
  }
  for (const one of document.querySelectorAll(".cell, .label, .text, h1, button, .title, #details li, #details p")) {
    const style = getComputedStyle(one);
    if (style.display !== "inline" && style.overflowX === "visible" && one.scrollWidth > one.clientWidth + 3)
      found.push([one.className, one.textContent]);
  }
  const page = document.scrollingElement;
  if (page.scrollWidth > innerWidth || page.scrollHeight > innerHeight) found.push("the page itself is scrolled");
  return found;
})()"""


@pytest.mark.parametrize("size", [(1600, 1000), (1024, 700), (420, 800)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", ["script", "large", "hostile"])
def test_nothing_overlaps_and_nothing_runs_out_of_its_box(
    chromium: Browser, pages: Pages, name: str, size: tuple[int, int]
) -> None:
    with chromium.page(pages[name], width=size[0], height=size[1]) as page:
        assert page.evaluate(LAYOUT) == []
        page.click(".row .label")
        assert details(page) != ""
        assert page.evaluate(LAYOUT) == []


#: Of an SVG: texts that leave the picture or their box, or that overlap another.
SVG_LAYOUT = """(() => {
  const found = [], svg = document.documentElement, area = svg.getBoundingClientRect();
  const texts = [...document.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()]);
  for (const [text, box] of texts)
    if (box.right > area.right || box.left < area.left || box.bottom > area.bottom || box.top < area.top)
      found.push(["outside", text]);
  const upright = texts.filter(([, box]) => box.height < 20);
  upright.forEach(([text, a], i) => upright.slice(i + 1).forEach(([other, b]) => {
    const [wide, high] = [
      Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top),
    ];
    if (wide > 0.5 && high > 4) found.push(["overlap", text, other]);
  }));
  for (const rect of document.querySelectorAll("g > rect")) {
    const text = rect.parentElement.querySelector(":scope > text.cell"), right = rect.getBoundingClientRect().right;
    if (text && text.getBoundingClientRect().right > right) found.push(["box", text.textContent]);
  }
  return [texts.length, found];
})()"""


@pytest.mark.parametrize("name", ["script", "large", "hostile"])
def test_in_a_picture_nothing_overlaps_and_nothing_runs_out_of_its_box(
    chromium: Browser, pages: Pages, name: str
) -> None:
    with chromium.page(pages[f"{name}.svg"]) as page:
        texts, wrong = page.evaluate(SVG_LAYOUT)
        assert texts > 20 and wrong == []
        assert page.requests == [pages[f"{name}.svg"].as_uri()]


@pytest.mark.parametrize(("dark", "scheme"), [(False, LIGHT), (True, DARK)], ids=["light", "dark"])
def test_a_picture_is_drawn_in_the_colours_of_its_surroundings(
    chromium: Browser, pages: Pages, dark: bool, scheme: Scheme
) -> None:
    with chromium.page(pages["script.svg"], dark=dark) as page:
        picture = page.screenshot()
        assert is_colour(picture.at(3, 3), scheme.ground)
        line = page.evaluate("document.querySelector('.whiteout + .strike').getBoundingClientRect().toJSON()")
        assert is_colour(picture.at(line["right"] - 6, line["y"]), scheme.gone)
        wall = page.evaluate("document.querySelector('.wall').getBoundingClientRect().toJSON()")
        assert is_colour(picture.at(wall["x"] + 2, wall["y"] + 8), scheme.ink)


# names ----------------------------------------------------------------------------------------------------------------
def test_hostile_names_are_shown_and_do_nothing(chromium: Browser, pages: Pages) -> None:
    with chromium.page(pages["hostile"]) as page:
        for name in HOSTILE:
            last = shown(name.split(b"/")[-1])
            page.press("/")
            page.write(last)
            assert last in labels(page), last
            page.press("Enter", "Enter")
            assert last in details(page), last
            page.press("Escape", "Escape")
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.evaluate("document.querySelectorAll('script, img, iframe, b:not(button b)').length") == 2
        assert (page.messages, page.requests) == ([], [pages["hostile"].as_uri()])


def test_a_script_that_got_into_the_page_would_not_run(chromium: Browser, pages: Pages, tmp_path: Path) -> None:
    """The last line of defence: the policy in the page."""
    injected = tmp_path / "injected.html"
    text = (
        pages["script"]
        .read_text()
        .replace("</footer>", "</footer><script>hacked=1</script><img src=x onerror=hacked=1>")
    )
    injected.write_text(text)
    with chromium.page(injected) as page:
        assert page.evaluate("typeof hacked") == "undefined"
        assert labels(page) == ALL
        assert page.messages != [] and all("Content Security Policy" in one for one in page.messages)
