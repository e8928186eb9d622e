"""The simulator: the engine's real decisions on layers in memory, command by command."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unionfs.errors import OptionError, ScriptError
from unionfs.explain.script import Command, parse, parse_line
from unionfs.explain.simulator import VERBS, Simulator, Step, choose

TWO_LAYERS = """
layer base
    write etc/motd Welcome.
    write etc/passwd root
    write srv/site/index.html "<h1>"
    ln etc/motd etc/issue
layer settings
    write etc/site.conf green   # on top
mount
"""


def simulator(script: str = TWO_LAYERS, as_: str = "unionfs", encoding: str = "kernel") -> Simulator:
    made = Simulator(*choose(as_, encoding))
    for command in parse(script.splitlines()):
        made.run(command)
    return made


def do(simulator: Simulator, text: str) -> Step:
    command = parse_line(text)
    assert command is not None
    return simulator.run(command)


def changes(step: Step) -> list[str]:
    return [f"{change.layer} {change.sign} {change.path} {change.text}" for change in step.changes]


def refusal(simulator: Simulator, text: str) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        do(simulator, text)
    return caught.value


# what is stored -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("encoding", "whiteout"),
    [("kernel", "character device 0:0"), ("aufs", "empty file .wh.passwd"), ("oci", "empty file .wh.passwd")],
)
def test_a_removed_file_leaves_the_encodings_whiteout(encoding: str, whiteout: str) -> None:
    assert changes(do(simulator(encoding=encoding), "rm etc/passwd")) == [
        "upper + etc dir",
        f"upper + etc/passwd whiteout: {whiteout}",
    ]


@pytest.mark.parametrize(
    ("encoding", "moved"),
    [
        ("kernel", ["upper + srv/www dir, trusted.overlay.redirect=site"]),
        ("aufs", ["upper + srv/www dir, holds .wh..wh..opq", 'upper + srv/www/index.html file "<h1>"']),
        ("oci", ["upper + srv/www dir", 'upper + srv/www/index.html file "<h1>"']),
    ],
)
def test_a_renamed_directory_is_what_the_encoding_can_hold(encoding: str, moved: list[str]) -> None:
    step = do(simulator(encoding=encoding), "mv srv/site srv/www")
    assert [line for line in changes(step) if "www" in line] == moved


def test_what_people_see_says_where_it_comes_from() -> None:
    made = simulator()
    do(made, "rm etc/passwd")
    merged = do(made, "append etc/motd more").picture.merged
    assert merged is not None
    assert merged["etc"].layers == ("upper", "settings", "base")
    assert (merged["etc/site.conf"].layers, merged["etc/motd"].layers) == (("settings",), ("upper",))
    assert (merged["etc/issue"].text, "etc/passwd" in merged) == ("Welcome. / more", False)


def test_a_layers_own_whiteouts_and_opaque_directories() -> None:
    for encoding in ("kernel", "aufs", "oci"):
        script = """
            layer base
            write a 1
            write d/below 1
            layer top
            whiteout a
            write d/above 2
            opaque d
            mount
        """
        made = simulator(script, encoding=encoding)
        assert do(made, "find").output == ("d", "d/above")
        assert do(made, "ls top:").output == ("a" if encoding == "kernel" else ".wh.a", "d")


def test_a_paths_colon_leads_into_a_layer() -> None:
    made = simulator()
    do(made, "append etc/motd more")
    assert do(made, "cat base:etc/motd").output == ("Welcome.",)
    assert do(made, "cat upper:etc/motd").output == ("Welcome.", "more")
    assert do(made, "ls -l upper:etc").output == ('motd  file "Welcome. / more"',)
    assert do(made, "stat base:etc/motd").output == ('file "Welcome."  mode 0644  owner 0:0',)
    assert "there are upper, base, settings" in str(refusal(made, "ls bottom:").hint)


def test_looking_changes_nothing_and_is_not_drawn() -> None:
    made = simulator()
    for text in ("ls", "ls -il etc", "cat etc/motd", "stat etc/motd", "find srv", "diff", "ls base:etc"):
        step = do(made, text)
        assert (step.changes, step.drawn) == ((), False), text
    assert do(made, "show").drawn


def test_symbolic_links_stay_inside() -> None:
    made = simulator()
    do(made, "ln -s /etc srv/etc")
    do(made, "ln -s ../../../etc/motd srv/site/motd")
    do(made, "ln -s loop loop")
    assert do(made, "cat srv/etc/motd").output == do(made, "cat srv/site/motd").output == ("Welcome.",)
    assert do(made, "ls srv/site/../../etc/..").output == ("etc", "loop", "srv")
    assert do(made, "fails cat loop").failure == "ELOOP (Too many levels of symbolic links)"


@pytest.mark.parametrize("text", ["mkdir -p a/b/c", "write new x", "touch etc/motd", "chmod 0600 etc/motd",
                                  "chown 1:2 etc", "mv --exchange etc/motd etc/passwd", "rm -r srv", "ln etc/motd x",
                                  "mv etc/motd srv", "append etc/passwd y"])  # fmt: skip
def test_a_change_is_taken_back(text: str) -> None:
    made = simulator()
    before = do(made, "show")
    assert do(made, text).drawn
    step = do(made, "undo")
    assert step.picture == before.picture and do(made, "diff").output == ()
    do(made, text)  # and can be made again


def test_what_is_open_is_open_again_after_undo() -> None:
    made = simulator()
    do(made, "open reader etc/motd")
    do(made, "append etc/motd more")
    do(made, "undo")
    assert do(made, "read reader").output == ("Welcome.",)
    do(made, "close reader")
    assert "nothing is open as reader" in str(refusal(made, "read reader"))


# push, pop, commit -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("encoding", ["kernel", "aufs", "oci"])
def test_what_is_pushed_is_a_layer_and_shows_the_same(encoding: str) -> None:
    made = simulator(encoding=encoding)
    for text in ("rm etc/passwd", "append etc/motd more", "mv srv/site srv/www", "rm -r srv", "mkdir srv"):
        do(made, text)
    seen = {path: shown.text for path, shown in (made.picture.merged or {}).items()}
    step = do(made, "push one")
    assert [column.name for column in step.picture.columns] == ["upper", "one", "settings", "base"]
    assert {path: shown.text for path, shown in (step.picture.merged or {}).items()} == seen
    assert do(made, "diff").output == do(made, "ls upper:").output == ()
    assert do(made, "ls -i etc").output[0].split()[0] == do(made, "ls -i etc").output[1].split()[0]  # still linked
    do(made, "append etc/issue again")
    step = do(made, "pop")
    assert {path: shown.text for path, shown in (step.picture.merged or {}).items()} == seen
    assert do(made, "cat etc/motd").output == ("Welcome.", "more")


def test_commit_lists_the_layer_tar_and_the_same_changes_have_the_same_digest() -> None:
    changed = ("rm etc/passwd", "append etc/motd more", "mv srv/site srv/www")
    first, again = simulator(), simulator()
    for made in (first, again):
        for text in changed:
            do(made, text)
    output = do(first, "commit").output
    assert output[:-1] == ("./", "etc/", "etc/.wh.passwd", "etc/issue", "etc/motd link to etc/issue", "srv/",
                           "srv/.wh.site", "srv/www/", "srv/www/index.html")  # fmt: skip
    assert output[-1].startswith("diff_id sha256:") and do(again, "commit").output == output


def test_metacopies_hold_no_data() -> None:
    made = simulator("layer base\nwrite big data\nmount -o metacopy")
    assert changes(do(made, "chmod 0600 big")) == ["upper + big file, metacopy: its data is still below"]
    assert (made.picture.merged or {})["big"].layers == ("upper", "base")
    assert (do(made, "cat big").output, do(made, "cat upper:big").output) == (("data",), ("\0" * 5,))
    assert changes(do(made, "append big x")) == ['upper ~ big file "data / x"']


# others ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("as_", ["kernel", "docker", "fuse-overlayfs"])
def test_who_cannot_rename_directories_says_so(as_: str) -> None:
    made = simulator(as_=as_)
    step = do(made, "fails mv srv/site srv/www")
    assert (
        step.failure == "EXDEV (Invalid cross-device link)"
        and "does not rename a directory that a layer has" in str(step.hint)
    )
    assert (step.changes, do(made, "ls srv").output) == ((), ("site",))
    do(made, "mkdir new")
    do(made, "mv new newer")  # which no layer has


def test_docker_does_not_compare_times_of_directories() -> None:
    for as_, expected in (("unionfs", ("C /etc", "C /srv")), ("docker", ())):
        made = simulator(as_=as_)
        do(made, "touch etc")
        do(made, "touch srv")
        assert do(made, "diff").output == expected
        do(made, "write srv/new x")
        assert do(made, "diff").output[-2:] == ("C /srv", "A /srv/new")


def test_options_that_make_no_sense_are_refused() -> None:
    for as_, encoding in (("windows", "kernel"), ("unionfs", "zfs"), ("kernel", "aufs"), ("docker", "aufs")):
        with pytest.raises(OptionError):
            choose(as_, encoding)


# scripts --------------------------------------------------------------------------------------------------------------
def test_a_failure_names_line_command_and_reason() -> None:
    with pytest.raises(ScriptError) as caught:
        simulator(TWO_LAYERS + "\n# a remark\nrmdir etc")
    assert str(caught.value) == "line 12: rmdir etc: ENOTEMPTY (Directory not empty)"
    assert (caught.value.line, caught.value.hint) == (12, "rm -r removes a directory with what is in it")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("foo", "no such command: foo", "help lists them"),
        ("rmd etc", "no such command: rmd", "perhaps rm"),
        ('write a "b', "no closing quotation", "close the quotes"),
        ("mv a", "mv: too few words", "usage: mv [--exchange] OLD NEW"),
        ("cat a b", "cat: too many words", "usage: cat PATH"),
        ("rm -x etc", "rm: no such option: -x", "usage: rm [-r] PATH"),
        ("chmod rwx etc", "no mode: rwx", "four octal digits"),
        ("chown me etc", "no owner: me", "UID or UID:GID"),
        ("mount", "it is mounted already", "push and pop"),
        ("layer more", "layers come before the mount", "push"),
        ("pop", "nothing has been pushed", "push"),
        ("push base", "no layer can be called 'base'", "another name"),
        ("push upper", "no layer can be called 'upper'", "another name"),
        ("whiteout etc/motd", "only before the mount", "rm leaves whiteouts"),
        ("fails ls", "ls: it does not fail", "leave the word"),
        ("fails", "fails: which command?", "fails rmdir etc"),
        ("open a etc/motd x", "open: too many words", "usage: open NAME PATH"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused_with_a_hint(text: str, message: str, hint: str) -> None:
    error = refusal(simulator(), text)
    assert message in str(error) and hint in str(error.hint)


@pytest.mark.parametrize("text", ["ls", "mount", "undo", "push", "remount", "commit"])
def test_what_comes_before_the_first_layer_is_refused_with_a_hint(text: str) -> None:
    assert refusal(Simulator(), text).hint


def test_a_refused_command_changes_nothing() -> None:
    made = simulator()
    before = do(made, "show").picture
    for text in ("rmdir etc", "rm nothing", "write etc x", "mv etc etc/inside", "mkdir srv", "ln srv x"):
        refusal(made, text)
        assert do(made, "show").picture == before


def test_a_refused_command_is_not_what_undo_takes_back() -> None:
    made = simulator()
    do(made, "rm etc/passwd")
    refusal(made, "rmdir etc")
    refusal(made, "push base")
    assert changes(do(made, "undo")) == ["upper - etc dir", "upper - etc/passwd whiteout: character device 0:0"]


def test_the_root_stays() -> None:
    made = simulator()
    for text in ("rm -r /", "rmdir etc/..", "mv / x", "mv --exchange / etc"):
        assert "EBUSY" in str(refusal(made, text)) or "EINVAL" in str(refusal(made, text)), text
    assert do(made, "ls").output == ("etc", "srv")


WORDS = ["a", "b", "d", "d/a", "d/e", "d/e/b", "/", "..", "", "base:d", "upper:", "x y", ".wh.a", "0", "0600", "1:1",
         "-r", "-s", "-p", "-i", "-o", "metacopy", "--exchange", "fails", "top", "\udcff", "'", "#"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(VERBS)), st.lists(st.sampled_from(WORDS), max_size=3)), min_size=8, max_size=25
    ),
    st.sampled_from(["unionfs", "kernel", "fuse-overlayfs"]),
    st.sampled_from(["kernel", "oci"]),
)
def test_any_words_are_done_or_refused(lines: list[tuple[str, list[str]]], as_: str, encoding: str) -> None:
    """Whatever is typed: a step or a ScriptError, an engine that is consistent, and an undo that leads back."""
    made = simulator("layer base\nwrite a 1\nwrite d/a 2\nwrite d/e/b 3\nln a b\nmount", as_, encoding)
    for verb, words in lines:
        before, past = made.picture, len(made._past)
        try:
            do(made, " ".join([verb, *(word if word in ("'", "#") else f'"{word}"' for word in words)]))
        except ScriptError:
            continue
        if made.world.fs is not None:
            made.world.fs.check_invariants()
        if len(made._past) > past:
            do(made, "undo")
            assert made.picture == before, (verb, words)
            do(made, " ".join([verb, *(word if word in ("'", "#") else f'"{word}"' for word in words)]))


def test_words_are_split_as_a_shell_does() -> None:
    assert parse_line(" write 'a b'  x # y ", 3) == Command("write 'a b'  x", ("write", "a b", "x"), 3)
    assert parse_line('write a "#1"') == Command('write a "#1"', ("write", "a", "#1"))
    assert parse_line("# only this") == Command("# only this", ())
    assert parse_line("   ") is None
