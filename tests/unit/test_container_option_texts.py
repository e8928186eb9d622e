"""Options of `run` as people write them: what each text means, and how what is malformed is refused."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.containers import option_texts
from unionfs.containers.settings import Port, Volume
from unionfs.errors import OptionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", Volume("/a", "/b")),
        ("/a/../x/:/b//c/.", Volume("/x", "/b/c")),
        ("./a:/b", Volume("/home/me/a", "/b")),
        (".:/b", Volume("/home/me", "/b")),
        ("..:/b", Volume("/home", "/b")),
        ("../a:/b", Volume("/home/a", "/b")),
        ("/a:/b:ro", Volume("/a", "/b", True)),
        ("/a:/b:rw", Volume("/a", "/b")),
        ("/a:/b:z,ro", Volume("/a", "/b", True)),
        ("/a:/b:ro,rslave,Z", Volume("/a", "/b", True, "rslave")),
        ("/a:/b:cached", Volume("/a", "/b")),
        ("/b", Volume("", "/b")),
        ("/a b:/c d", Volume("/a b", "/c d")),
    ],
)
def test_volume(text: str, expected: Volume) -> None:
    assert option_texts.volumes([text], "/home/me") == (expected,)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "invalid volume specification: ''"),
        (":", "invalid volume specification"),
        (":/b", "invalid volume specification"),
        ("/a:", "invalid volume specification"),
        ("/a:/b:", "invalid volume specification"),
        ("/a:/b:ro:rw", "invalid volume specification"),
        ("/a:b", "invalid mount path: 'b' must be absolute"),
        ("b", "invalid mount path: 'b' must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b/..", "destination can't be '/'"),
        ("//", "destination can't be '/'"),
        ("/a:/b:readonly", "invalid mode: readonly"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("data:/b", "data would be a named volume"),
        ("a/b:/c", "a/b would be a named volume"),
    ],
)
def test_volume_that_is_none(text: str, complaint: str) -> None:
    with pytest.raises(OptionError) as caught:
        option_texts.volumes([text], "/home/me")
    assert complaint in str(caught.value)


def test_two_volumes_in_one_place() -> None:
    with pytest.raises(OptionError, match="duplicate mount point: /b"):
        option_texts.volumes(["/a:/b", "/c:/b/"], "/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [Port("", 0, 80)]),
        ("8080:80", [Port("", 8080, 80)]),
        ("8080:80/udp", [Port("", 8080, 80, "udp")]),
        ("80/TCP", [Port("", 0, 80)]),
        ("80/", [Port("", 0, 80)]),
        ("127.0.0.1:8080:80", [Port("127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 80)]),
        (":80", [Port("", 0, 80)]),
        ("0:80", [Port("", 0, 80)]),
        ("[::1]:8080:80", [Port("::1", 8080, 80)]),
        ("[0:0::1]::80", [Port("::1", 0, 80)]),
        ("8000-8001:80-81", [Port("", 8000, 80), Port("", 8001, 81)]),
        ("80-81", [Port("", 0, 80), Port("", 0, 81)]),
        ("8000-8002:80", [Port("", 8000, 80, "tcp", 8002)]),
        ("127.0.0.1:8000-8002:80/udp", [Port("127.0.0.1", 8000, 80, "udp", 8002)]),
        ("8000-8002:80-80", [Port("", 8000, 80, "tcp", 8002)]),
        ("8000-8000:80", [Port("", 8000, 80)]),
    ],
)
def test_port(text: str, expected: list[Port]) -> None:
    assert option_texts.ports([text]) == tuple(expected)


def test_port_given_twice_is_one() -> None:
    assert option_texts.ports(["8080:80", "8080:80/tcp", "81"]) == (Port("", 8080, 80), Port("", 0, 81))


def test_port_of_any_number_given_twice_is_two() -> None:
    assert option_texts.ports(["81", "81"]) == (Port("", 0, 81),) * 2
    assert option_texts.ports(["8000-8001:80", "8000-8001:80"]) == (Port("", 8000, 80, last=8001),) * 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no port specified: <empty>"),
        ("80:", "no port specified: 80:<empty>"),
        ("x", "invalid containerPort: x"),
        ("0", "invalid containerPort: 0"),
        ("65536", "invalid containerPort: 65536"),
        ("-1", "invalid containerPort: -1"),
        ("81-80", "invalid containerPort: 81-80"),
        ("0-5", "invalid containerPort: 0-5"),
        ("80-", "invalid containerPort: 80-"),
        ("x:80", "invalid hostPort: x"),
        ("65536:80", "invalid hostPort: 65536"),
        ("80:80/sctp", "invalid proto: sctp"),
        ("80:80/tcp/", "invalid proto: tcp/"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("::1:80:80", "invalid IP address: ::1"),
        ("8000-8002:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"),
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
        ("8002-8000:80", "invalid hostPort: 8002-8000"),
        ("0-5:80", "invalid hostPort: 0-5"),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
        ("٨٠", "invalid containerPort"),
    ],
)
def test_port_that_is_none(text: str, complaint: str) -> None:
    with pytest.raises(OptionError) as caught:
        option_texts.ports([text])
    assert str(caught.value).startswith(complaint)


def test_environment() -> None:
    own = {"HOME": "/home/me", "EMPTY": ""}
    found = option_texts.environment(["A=1", "B=", "C=a=b", "HOME", "EMPTY", "UNSET", "D= x "], own)
    assert found == ("A=1", "B=", "C=a=b", "HOME=/home/me", "EMPTY=", "UNSET", "D= x ")


@pytest.mark.parametrize("text", ["", "=", "=x", "A=\0"])
def test_environment_without_a_name(text: str) -> None:
    with pytest.raises(OptionError, match="invalid environment variable"):
        option_texts.environment([text], {})


def test_environment_file() -> None:
    data = b"\xef\xbb\xbf# comment\r\nA=1\r\n\r\n  B= two words \nC=#no comment\nHOME\nUNSET\n\"Q\"='x'\nE=\rF"
    found = option_texts.environment_file(data, "f", {"HOME": "/h"})
    assert found == ("A=1", "B= two words ", "C=#no comment", "HOME=/h", "\"Q\"='x'", "E=\rF")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"A B=1", "f: variable 'A B' contains whitespaces"),
        (b"A =1", "f: variable 'A ' contains whitespaces"),
        (b"\n=1", "f: no variable name on line '=1'"),
        (b"A=1\nB=\xff", "f: invalid utf8 bytes at line 2"),
        (b"A=\0", "invalid environment variable"),
    ],
)
def test_environment_file_that_makes_no_sense(data: bytes, complaint: str) -> None:
    with pytest.raises(OptionError) as caught:
        option_texts.environment_file(data, "f", {})
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64m", 64 << 20), ("64M", 64 << 20), ("64mb", 64 << 20), ("64MiB", 64 << 20), ("1.5g", 3 << 29),
        ("8388608", 8 << 20), ("8388608b", 8 << 20), ("10240k", 10 << 20), ("1 g", 1 << 30), ("0", None), ("0m", None),
        ("6m", 6 << 20), ("1t", 1 << 40), ("1p", 1 << 50),
    ],
)  # fmt: skip
def test_memory(text: str, expected: int | None) -> None:
    assert option_texts.memory(text) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "64x", "-1", "1e9", "0x10", "64 mm", "64m ", ".5g", "5.g", "9999999p", "1ib"]
)
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match="invalid size"):
        option_texts.memory(text)


@pytest.mark.parametrize("text", ["1", "4m", "6143k"])
def test_memory_too_small_for_a_container(text: str) -> None:
    with pytest.raises(OptionError, match="Minimum memory limit allowed is 6MB"):
        option_texts.memory(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TERM", signal.SIGTERM), ("SIGTERM", signal.SIGTERM), ("sigquit", signal.SIGQUIT), ("15", 15), (" 9 ", 9),
        ("RTMIN+3", signal.SIGRTMIN + 3), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("rtmax-1", signal.SIGRTMAX - 1),
        ("SIGRTMIN", signal.SIGRTMIN), ("64", 64), ("SIGWINCH", signal.SIGWINCH),
    ],
)  # fmt: skip
def test_signal(text: str, expected: int) -> None:
    assert option_texts.signal_number(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "65", "999", "-9", "SIG", "FOO", "RTMIN-1", "RTMAX+1", "SIG_DFL", "_IGN", "BLOCK"]
)
def test_signal_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match="invalid signal"):
        option_texts.signal_number(text)


@given(st.text(alphabet=st.sampled_from("/:.,ab[]01-\0é "), max_size=20))
def test_whatever_is_written_is_a_value_or_an_error_of_its_own(text: str) -> None:
    for parse in (
        lambda: option_texts.volumes([text], "/"),
        lambda: option_texts.ports([text]),
        lambda: option_texts.memory(text),
        lambda: option_texts.signal_number(text),
        lambda: option_texts.environment([text], {}),
        lambda: option_texts.environment_file(text.encode(), "f", {}),
    ):
        try:
            parse()
        except OptionError:
            pass
