"""Instructions of `-c`: what each makes of a configuration, and how what is malformed is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.errors import ChangeError
from unionfs.image.mutate import INSTRUCTIONS, changed

SECOND = 10**9

CHANGES: list[tuple[dict[str, Any], str | list[str], dict[str, Any]]] = [
    # CMD and ENTRYPOINT: exec form, shell form, the image's own shell
    ({}, 'CMD ["httpd","-f","-h","/var/www/"]', {"Cmd": ["httpd", "-f", "-h", "/var/www/"]}),
    ({}, "CMD httpd -f  -h /var/www", {"Cmd": ["/bin/sh", "-c", "httpd -f  -h /var/www"]}),
    ({}, "cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
    ({}, "CMD [httpd, -f]", {"Cmd": ["/bin/sh", "-c", "[httpd, -f]"]}),  # no JSON, so the shell's
    ({"Cmd": ["a"]}, "CMD []", {}),
    ({"Shell": ["/bin/ash", "-ec"]}, "CMD a", {"Shell": ["/bin/ash", "-ec"], "Cmd": ["/bin/ash", "-ec", "a"]}),
    ({"Cmd": ["old"]}, 'ENTRYPOINT ["/init"]', {"Entrypoint": ["/init"]}),  # the old arguments go
    ({"Cmd": ["old"]}, ["CMD new", "ENTRYPOINT init"], {"Cmd": ["/bin/sh", "-c", "new"], "Entrypoint": ["/bin/sh", "-c", "init"]}),  # noqa: E501
    ({"Entrypoint": ["/init"]}, "CMD a", {"Entrypoint": ["/init"], "Cmd": ["/bin/sh", "-c", "a"]}),
    ({"Entrypoint": ["/init"]}, "ENTRYPOINT []", {}),
    # ENV: pairs, quotes, the old form, replacement in place, variables
    ({}, "ENV A=1", {"Env": ["A=1"]}),
    ({}, 'ENV A=1 B="two words" C=three\\ words', {"Env": ["A=1", "B=two words", "C=three words"]}),
    ({}, "ENV A='$B' C=", {"Env": ["A=$B", "C="]}),
    ({}, "ENV A one two  three", {"Env": ["A=one two  three"]}),
    ({}, 'ENV A "one two"', {"Env": ["A=one two"]}),
    ({}, "ENV A=b=c", {"Env": ["A=b=c"]}),
    ({"Env": ["PATH=/bin", "A=1", "Z=9"]}, "ENV A=2 PATH=$PATH:/sbin", {"Env": ["PATH=/bin:/sbin", "A=2", "Z=9"]}),
    ({"Env": ["A=1"]}, "ENV A=2 B=$A", {"Env": ["A=2", "B=1"]}),  # all of one instruction see what was before it
    ({"Env": ["A=1"]}, ["ENV A=2", "ENV B=$A"], {"Env": ["A=2", "B=2"]}),
    ({}, 'ENV A="say \\"hi\\"" B="\\$x"', {"Env": ['A=say "hi"', "B=$x"]}),
    # LABEL
    ({"Labels": {"a": "1", "b": "2"}}, 'LABEL a=3 "c d"="e f"', {"Labels": {"a": "3", "b": "2", "c d": "e f"}}),
    ({"Env": ["V=7"]}, "LABEL version=${V}.1", {"Env": ["V=7"], "Labels": {"version": "7.1"}}),
    ({}, "LABEL a b c", {"Labels": {"a": "b c"}}),
    # EXPOSE, VOLUME
    ({}, "EXPOSE 80 53/udp", {"ExposedPorts": {"53/udp": {}, "80/tcp": {}}}),
    ({"ExposedPorts": {"1/tcp": {}}}, "EXPOSE 8000-8002/TCP", {"ExposedPorts": {"1/tcp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}}),  # noqa: E501
    ({}, "EXPOSE 8080:80 81/", {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}),
    ({"Env": ["P=1 2/udp"]}, "EXPOSE $P", {"Env": ["P=1 2/udp"], "ExposedPorts": {"1/tcp": {}, "2/udp": {}}}),
    ({}, "VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
    ({"Volumes": {"/a": {}}}, 'VOLUME ["/b c"]', {"Volumes": {"/a": {}, "/b c": {}}}),
    # USER, WORKDIR, STOPSIGNAL, ONBUILD
    ({"User": "root"}, "USER app:staff", {"User": "app:staff"}),
    ({}, "WORKDIR /srv", {"WorkingDir": "/srv"}),
    ({"WorkingDir": "/srv"}, ["WORKDIR www", "WORKDIR ../x"], {"WorkingDir": "/srv/x"}),
    ({}, "WORKDIR www", {"WorkingDir": "/www"}),
    ({}, "STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
    ({}, "STOPSIGNAL 9", {"StopSignal": "9"}),
    ({}, "STOPSIGNAL rtmin+3", {"StopSignal": "rtmin+3"}),
    ({"OnBuild": ["RUN a"]}, 'ONBUILD  COPY ["x","y"]', {"OnBuild": ["RUN a", 'COPY ["x","y"]']}),
    # HEALTHCHECK
    ({}, "HEALTHCHECK CMD curl -f localhost", {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"]}}),
    ({}, 'HEALTHCHECK cmd ["true"]', {"Healthcheck": {"Test": ["CMD", "true"]}}),
    ({"Healthcheck": {"Test": ["CMD", "x"], "Retries": 2}}, "HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
    (
        {},
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=250ms --start-interval=1h --retries=3 CMD true",
        {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90 * SECOND, "Timeout": 3 * SECOND // 2, "StartPeriod": SECOND // 4, "StartInterval": 3600 * SECOND, "Retries": 3}},  # noqa: E501
    ),
    ({}, "HEALTHCHECK --interval=0 --retries=0 CMD x", {"Healthcheck": {"Test": ["CMD-SHELL", "x"]}}),
    # podman's way
    ({}, "CMD=/bin/sh", {"Cmd": ["/bin/sh", "-c", "/bin/sh"]}),
    ({}, 'CMD=["a","b"]', {"Cmd": ["a", "b"]}),
    ({}, "ENV=A=1", {"Env": ["A=1"]}),
    ({}, "label=a=b", {"Labels": {"a": "b"}}),
    ({}, "USER=app", {"User": "app"}),
    # several, comments, continued lines
    ({}, ["USER a", "", "# USER b", "WORKDIR /x\nENV A=1 \\\n  B=2"], {"User": "a", "WorkingDir": "/x", "Env": ["A=1", "B=2"]}),  # noqa: E501
    # what is not known stays
    ({"ArgsEscaped": True, "X": [1]}, "USER a", {"ArgsEscaped": True, "X": [1], "User": "a"}),
    ({"A": 1}, [], {"A": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "change", "result"), CHANGES)
def test_an_instruction_changes_what_it_names(
    config: dict[str, Any], change: str | list[str], result: dict[str, Any]
) -> None:
    before = copy.deepcopy(config)
    assert changed(config, [change] if isinstance(change, str) else change) == result
    assert config == before


REFUSED = [
    ("RUN make", "RUN is not a valid change command"),
    ("run make", "run is not a valid change command"),
    ("FROM x", "FROM is not a valid change command"),
    ("SHELL [\"a\"]", "SHELL is not a valid change command"),
    ("MAINTAINER me", "MAINTAINER is not a valid change command"),
    ("ADD=a b", "ADD=a is not a valid change command"),
    ("ENV", "ENV requires at least one argument"),
    ("ENV A", "ENV must have two arguments"),
    ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
    ("ENV =1", "ENV names can not be blank"),
    ("ENV A='x", "failed to process \"'x\": unexpected end of statement while looking for matching single-quote"),
    ('ENV A="x', "failed to process \"\"x\": unexpected end of statement while looking for matching double-quote"),
    ("ENV A=${B", "failed to process \"${B\": syntax error: missing '}'"),
    ("ENV A=${", "failed to process \"${\": syntax error: missing '}'"),
    ("ENV A=${}", "failed to process \"${}\": syntax error: bad substitution"),
    ("ENV A=${B!x}", "failed to process \"${B!x}\": unsupported modifier (!) in substitution"),
    ("ENV A=${B:?}", "failed to process \"${B:?}\": B: is not allowed to be unset"),
    ("ENV A=${B?give-B}", "failed to process \"${B?give-B}\": B: give-B"),
    ("CMD", "CMD requires at least one argument"),
    ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
    ("CMD --x a", "unknown flag: --x"),
    ("EXPOSE 80/icmp", "invalid proto: icmp"),
    ("EXPOSE x", "invalid containerPort: x"),
    ("EXPOSE 70000", "invalid containerPort: 70000"),
    ("EXPOSE 9-1", "invalid containerPort: 9-1"),
    ("USER", "USER requires exactly one argument"),
    ("WORKDIR $NONE", "cannot normalize nothing"),
    ("VOLUME", "VOLUME requires at least one argument"),
    ('VOLUME [""]', "VOLUME specified can not be an empty string"),
    ("STOPSIGNAL SIGNONE", "invalid signal: SIGNONE"),
    ("STOPSIGNAL 0", "invalid signal: 0"),
    ("ONBUILD", "ONBUILD requires at least one argument"),
    ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK curl", 'Unknown type "CURL" in HEALTHCHECK (try CMD)'),
    ("HEALTHCHECK --bogus=1 CMD x", "unknown flag: --bogus"),
    ("HEALTHCHECK --interval CMD x", "missing a value on flag: interval"),
    ("HEALTHCHECK --retries=1 --retries=2 CMD x", "duplicate flag specified: retries"),
    ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ("HEALTHCHECK --retries=x CMD x", "--retries is no number: x"),
    ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
    ("HEALTHCHECK --interval=5 CMD x", 'time: missing unit in duration "5"'),
    ("HEALTHCHECK --interval=5d CMD x", 'time: unknown unit "d" in duration "5d"'),
    ("HEALTHCHECK --interval=soon CMD x", 'time: invalid duration "soon"'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_no_change_is_refused_in_dockers_words(change: str, message: str) -> None:
    config = {"User": "a", "Env": ["C=1"]}
    with pytest.raises(ChangeError) as caught:
        changed(config, ["USER b", change])
    assert str(caught.value) == message
    assert config == {"User": "a", "Env": ["C=1"]}


def test_an_unknown_instruction_is_refused_before_any_other_is_looked_at() -> None:
    with pytest.raises(ChangeError, match=r"^RUN is not") as caught:
        changed({}, ["ENV broken", "RUN x"])
    assert caught.value.hint == f"one of {', '.join(INSTRUCTIONS)}"


ENV = ["EMPTY=", "P=/a/b/c.tar.gz"]

SUBSTITUTIONS = [
    ("$P", "/a/b/c.tar.gz"), ("${P}", "/a/b/c.tar.gz"), ("\\$P", "$P"), ("x$", "x$"), ("$NONE", ""), ("$9x", "x"),
    ("${NONE:-d}", "d"), ("${NONE-d}", "d"), ("${EMPTY:-d}", "d"), ("${EMPTY-d}", ""), ("${P:-d}", "/a/b/c.tar.gz"),
    ("${P:+d}", "d"), ("${EMPTY:+d}", ""), ("${EMPTY+d}", "d"), ("${NONE:-${P}}", "/a/b/c.tar.gz"),
    ("${P#*/}", "a/b/c.tar.gz"), ("${P##*/}", "c.tar.gz"), ("${P%.*}", "/a/b/c.tar"), ("${P%%.*}", "/a/b/c"),
    ("${P#?a}", "/b/c.tar.gz"), ("${P#x}", "/a/b/c.tar.gz"), ("${P/b/X}", "/a/X/c.tar.gz"),
    ("${P//[/]/X}", "/a/b/c.tar.gz"),
    ("${P//\\//-}", "-a-b-c.tar.gz"), ("${P/.*/}", "/a/b/c"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "value"), SUBSTITUTIONS)
def test_a_variable_is_replaced_as_in_a_shell(word: str, value: str) -> None:
    result = changed({"Env": list(ENV)}, [f"ENV V=<{word}>"])
    assert result["Env"][-1] == f"V=<{value}>"


_NAME = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
_VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\n'"), max_size=20)


@given(st.dictionaries(_NAME, _VALUE, min_size=1, max_size=4))
def test_a_quoted_value_is_taken_as_it_is(pairs: dict[str, str]) -> None:
    words = " ".join(f"x{name}='{value}'" for name, value in pairs.items())
    # Not at the end of the line, where a backslash would continue it.
    assert changed({}, [f"ENV {words} last=1"])["Env"] == [*(f"x{n}={v}" for n, v in pairs.items()), "last=1"]


@given(st.sampled_from(INSTRUCTIONS), st.text(max_size=60))
def test_any_text_is_a_change_or_refused(instruction: str, text: str) -> None:
    try:
        changed({"Env": ["A=1"]}, [f"{instruction} {text}"])
    except ChangeError:
        pass
