"""The command line of unionfs-mount: what podman, buildah, mount(8) and people write, and what nobody should."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.errors import OptionError
from unionfs.mounts.helper import (
    USAGE,
    HelperRequest,
    extra_mount_flags,
    from_options,
    parse_argv,
    parse_id_mapping,
    parse_mount_options,
    split_lowers,
    unescape,
)

L = ["-o", "lowerdir=/a"]


def paths(request: HelperRequest) -> tuple[tuple[bytes, ...], bytes | None, bytes | None, bytes]:
    return request.lowers, request.upper, request.work, request.mountpoint


# argv as its three kinds of caller write it -------------------------------------------------------------------------
def test_podmans_three_arguments() -> None:
    request = parse_argv(
        ["-o", "lowerdir=/s/l/A:/s/l/B,upperdir=/s/1/diff,workdir=/s/1/work,,volatile,", "/s/1/merged"]
    )
    assert paths(request) == ((b"/s/l/A", b"/s/l/B"), b"/s/1/diff", b"/s/1/work", b"/s/1/merged")
    assert request.action == "mount" and request.volatile and not request.read_only and not request.foreground
    assert request.unknown_options == () and request.ignored == ()


def test_podmans_selinux_label_keeps_its_commas() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    request = parse_argv(["-o", f'lowerdir=/a,context="{label}",nodev', "/m"])
    assert request.options == {"context": label, "nodev": None}
    assert extra_mount_flags(request.options) == ("nodev", f'context="{label}"')


def test_buildahs_private_and_escaped_colon() -> None:
    request = parse_argv(["-o", r"lowerdir=/src/a\:b,upperdir=/u,workdir=/w,private", "/m"])
    assert request.lowers == (b"/src/a:b",)
    assert request.unknown_options == ("private",) and request.ignored == ()


def test_no_upperdir_means_read_only() -> None:
    assert parse_argv([*L, "/m"]).read_only
    writable = ["-o", "lowerdir=/a,upperdir=/u,workdir=/w"]
    assert not parse_argv([*writable, "/m"]).read_only
    assert parse_argv([*writable, "-o", "ro", "/m"]).read_only
    assert parse_argv([*writable, "-r", "/m"]).read_only
    assert not parse_argv([*writable, "-o", "ro,rw", "/m"]).read_only


def test_mount8_form() -> None:
    request = parse_argv(["none", "/m", "-n", "-s", "-v", "-o", "rw,dev,suid,lowerdir=/a,subtype=x", "-t", "fuse.y"])
    assert request.mountpoint == b"/m" and request.source == b"none"
    assert request.options == {"dev": None, "suid": None, "subtype": "x", "fsname": "none"}
    assert request.ignored == ()


def test_fsname_option_beats_the_source_of_the_mount8_form() -> None:
    assert parse_argv(["src", "/m", "-ofsname=named", *L]).options["fsname"] == "named"


@pytest.mark.parametrize("argv", [["-o", "lowerdir=/a", "/m"], ["/m", "-o", "lowerdir=/a"], ["/m", "-olowerdir=/a"]])
def test_options_before_or_after_the_mountpoint_and_glued(argv: list[str]) -> None:
    assert paths(parse_argv(argv)) == ((b"/a",), None, None, b"/m")


def test_last_word_that_is_no_option_is_the_mountpoint() -> None:
    assert parse_argv(["/x", "/y", "-f", "/m", *L]).mountpoint == b"/m"


def test_double_dash_ends_options() -> None:
    assert parse_argv([*L, "--", "-odd"]).mountpoint == b"-odd"


def test_several_o_add_up_and_the_last_of_a_key_wins() -> None:
    request = parse_argv(
        ["-o", "lowerdir=/old,upperdir=/u1", "-o", "lowerdir=/a:/b,upperdir=/u2", "-oworkdir=/w", "/m"]
    )
    assert paths(request) == ((b"/a", b"/b"), b"/u2", b"/w", b"/m")


def test_flags() -> None:
    assert parse_argv(["-f", *L, "/m"]).foreground
    for debug in (["-d"], ["--debug"], ["-o", "debug"]):
        request = parse_argv([*debug, *L, "/m"])
        assert request.debug and request.foreground, debug


def test_unknown_arguments_are_ignored_aloud_and_unknown_options_silently() -> None:
    request = parse_argv(["-x", "--frob=1", "-o", "lowerdir=/a,whatever=2,nonsense", "/m"])
    assert request.ignored == ("unknown argument ignored: -x", "unknown argument ignored: --frob=1")
    assert request.unknown_options == ("whatever=2", "nonsense")


@pytest.mark.parametrize(
    "word, action", [("-V", "version"), ("--version", "version"), ("-h", "help"), ("--help", "help")]
)
def test_version_and_help_need_nothing_else(word: str, action: str) -> None:
    assert parse_argv([word]).action == action
    assert parse_argv(["/m", word, "-o"]).action == action


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "no mountpoint given"),
        (L, "no mountpoint given"),
        (["/m"], "no lowerdir given"),
        (["/m", "-o"], "-o needs an argument"),
        (["-o", "lowerdir=/a,upperdir=/u", "/m"], "upperdir without workdir"),
        (["-o", "lowerdir=", "/m"], "lowerdir needs a directory"),
        (["-o", "lowerdir", "/m"], "lowerdir needs a directory"),
        (["-o", "lowerdir=:", "/m"], "no lowerdir given"),
        (["-o", "lowerdir=/a,upperdir=,workdir=/w", "/m"], "upperdir needs a directory"),
        (["-o", "lowerdir=/a::/data", "/m"], "data-only layers are not supported"),
        (["-o", "lowerdir=/a,datadir+=/d", "/m"], "data-only layers are not supported"),
    ],
)
def test_what_cannot_be_mounted_is_refused_with_a_hint(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        parse_argv(argv)
    assert caught.value.hint


def test_usage_names_every_option_it_explains() -> None:
    for word in ("-f", "-d", "-V", "-h", "lowerdir=", "lowerdir+=", "upperdir=", "workdir=", "MOUNTPOINT"):
        assert word in USAGE


# -o text ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text, pairs",
    [
        ("", []),
        (",,", []),
        ("a", [("a", None)]),
        ("a=", [("a", "")]),
        ("a=b=c", [("a", "b=c")]),
        ("a=1,,b,", [("a", "1"), ("b", None)]),
        ('a="x,y",b', [("a", "x,y"), ("b", None)]),
        ('a="unclosed,b', [("a", "unclosed,b")]),
        (r"a=x\,y,b", [("a", r"x\,y"), ("b", None)]),
        (r"a=\"x,b", [("a", r"\"x"), ("b", None)]),
        ("a=end\\", [("a", "end\\\\")]),
    ],
)
def test_splitting_of_option_text(text: str, pairs: list[tuple[str, str | None]]) -> None:
    assert parse_mount_options(text) == pairs


def test_bytes_that_are_not_utf8_survive() -> None:
    request = parse_argv([b"-o", b"lowerdir=/\xff\xfe,upperdir=/\xe4,workdir=/w", b"/m\xff"])
    assert paths(request) == ((b"/\xff\xfe",), b"/\xe4", b"/w", b"/m\xff")


@pytest.mark.parametrize(
    "value, expected",
    [
        ("/a:/b", [b"/a", b"/b"]),
        (r"/a\:b:/c", [b"/a:b", b"/c"]),
        (r"/a\\:/c", [b"/a\\", b"/c"]),
        (r"/a\,b", [b"/a,b"]),
        (":/a:", [b"/a"]),
        ("rel:../x", [b"rel", b"../x"]),
    ],
)
def test_splitting_of_lowerdir(value: str, expected: list[bytes]) -> None:
    assert split_lowers(value) == expected


def test_lowerdir_plus_adds_one_path_whatever_its_colons() -> None:
    overlay = from_options(parse_mount_options(r"lowerdir=/a:/b,lowerdir+=/c:d,lowerdir+=/e\,f"))
    assert overlay.lowers == (b"/a", b"/b", b"/c:d", b"/e,f")


@pytest.mark.parametrize(
    "text, volatile", [("volatile", 1), ("fsync=0", 1), ("fsync=volatile", 1), ("fsync=1", 0), ("", 0)]
)
def test_every_spelling_of_volatile(text: str, volatile: int) -> None:
    assert from_options(parse_mount_options(text)).volatile == bool(volatile)


def test_nul_in_a_path_is_refused() -> None:
    with pytest.raises(OptionError, match="NUL"):
        from_options([("lowerdir", "/a\0b")])


# id mappings --------------------------------------------------------------------------------------------------------
def test_storages_mapping_with_its_leading_colon() -> None:
    assert parse_id_mapping(":0:100000:5000") == ((0, 100000, 5000),)
    assert parse_id_mapping("0:100000:5000:5000:0:1") == ((0, 100000, 5000), (5000, 0, 1))


@pytest.mark.parametrize(
    "value", ["", ":", "1:2", "a:b:c", "1:2:0", "0:0:-1", "4294967295:0:2", "0:٣:1", "0:0:99999999999"]
)
def test_mappings_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(OptionError):
        parse_id_mapping(value)


# any input ----------------------------------------------------------------------------------------------------------
_PIECES = """
    -o -f -d -- - -t -x lowerdir= lowerdir+= upperdir=/u workdir=/w /m : :: \\ " , = a
    datadir+= ro debug context= \udcff
"""
_pieces = st.lists(st.sampled_from(_PIECES.split()), max_size=8)
_words = st.one_of(_pieces.map("".join), st.text(max_size=20), st.just("-o"), st.just("/m"))


def _encodable(word: str) -> bool:
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


@given(st.lists(_words.filter(_encodable), max_size=6))
def test_any_argv_is_a_request_or_an_option_error(argv: list[str]) -> None:
    try:
        request = parse_argv(argv)
    except OptionError as error:
        assert str(error)
        return
    assert request == parse_argv([os.fsencode(word) for word in argv])
    if request.action == "mount":
        assert request.mountpoint and request.lowers and all(request.lowers)
        assert request.upper is None or request.work is not None
        assert request.upper is not None or request.read_only


@given(st.binary(max_size=60))
def test_any_bytes_are_option_text(text: bytes) -> None:
    for key, value in parse_mount_options(text):
        assert '"' not in key.replace('\\"', "")
        assert value is None or isinstance(unescape(value), str)


_path = st.binary(min_size=1, max_size=12).filter(lambda path: b"\0" not in path)


@given(st.lists(_path, min_size=1, max_size=5), _path, _path)
def test_paths_escaped_as_documented_come_back(lowers: list[bytes], upper: bytes, work: bytes) -> None:
    def escaped(path: bytes) -> bytes:
        return b"".join(b"\\" + bytes([c]) if c in b'\\,:"' else bytes([c]) for c in path)

    text = b"lowerdir=%s,upperdir=%s,workdir=%s" % (b":".join(map(escaped, lowers)), escaped(upper), escaped(work))
    assert paths(parse_argv([b"-o", text, b"/m"])) == (tuple(lowers), upper, work, b"/m")
