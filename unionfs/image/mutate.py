"""Changes of an image's configuration: the instructions of `commit -c` and `import -c`.

    CMD ["httpd","-f"]     ENTRYPOINT …     ENV A=1 B="two words"     ENV A one value     EXPOSE 80 53/udp
    HEALTHCHECK --interval=5s CMD curl -f localhost     HEALTHCHECK NONE     LABEL a=b     ONBUILD RUN make
    STOPSIGNAL SIGINT     USER app     VOLUME ["/data"]     WORKDIR /srv

An instruction is read as in a Dockerfile (moby daemon/builder/dockerfile BuildFromConfig, BuildKit's parser): a JSON
array of strings is the exec form, anything else is given to the shell; quotes and ${VARIABLES} of the image's own
environment are resolved in ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR. podman's `KEY=value` is understood
too (`CMD=/bin/sh`, `ENV=A=1`). Nothing else of a Dockerfile may stand here.

`changed` takes the `config` object of an image configuration (image-spec config.md) as JSON values, and answers with a
new one; what no instruction names stays, whether it is known here or not.
"""

from __future__ import annotations

import copy
import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from unionfs.errors import ChangeError
from unionfs.image.shell_words import expand, expand_words, split_words

#: moby daemon/builder/dockerfile/builder.go, validCommitCommands.
INSTRUCTIONS: Final = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
SHELL: Final = ("/bin/sh", "-c")

Config = dict[str, Any]


def changed(config: Mapping[str, Any], changes: Iterable[str]) -> Config:
    """`config` after the instructions `changes`, one or more lines each, in order. ChangeError, and nothing is done,
    for one that is unknown or malformed."""
    state = _State(copy.deepcopy(dict(config)))
    instructions = [_split(line) for line in _lines(changes)]
    for name, _ in instructions:
        if name.upper() not in INSTRUCTIONS:
            raise ChangeError(f"{name} is not a valid change command", hint=f"one of {', '.join(INSTRUCTIONS)}")
    for name, rest in instructions:
        _APPLY[name.upper()](state, rest)
    return state.config


class _State:
    """A configuration on its way. `cmd_set`: one of the instructions was CMD."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cmd_set = False

    @property
    def env(self) -> dict[str, str]:
        return dict(pair.partition("=")[::2] for pair in self.config.get("Env") or ())

    @property
    def shell(self) -> list[str]:
        return list(self.config.get("Shell") or SHELL)

    def set(self, key: str, value: object) -> None:
        """A value that is None or empty is left out, as Go's omitempty."""
        if value:
            self.config[key] = value
        else:
            self.config.pop(key, None)

    def table(self, key: str) -> dict[str, Any]:
        """An object of the configuration, to be added to."""
        if not self.config.get(key):
            self.config[key] = {}
        table: dict[str, Any] = self.config[key]
        return table


# Reading -------------------------------------------------------------------------------------------------------------
def _lines(changes: Iterable[str]) -> list[str]:
    """Logical lines: a backslash at the end of one continues it; comments and empty lines are none."""
    lines: list[str] = []
    pending = ""
    for text in "\n".join(changes).split("\n"):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        continued = re.fullmatch(r"(.*?)\\[ \t]*", text)
        if continued:
            pending += continued[1]
            continue
        lines.append(pending + text)
        pending = ""
    return [*lines, pending] if pending.strip() else lines


def _split(line: str) -> tuple[str, str]:
    """(instruction, the rest). `KEY=value` is podman's way to write it."""
    line = line.strip()
    podman = re.match(r"([A-Za-z]+)=", line)
    if podman and podman[1].upper() in INSTRUCTIONS:
        return podman[1], line[podman.end() :].strip()
    name, *rest = line.split(maxsplit=1)
    return name, rest[0] if rest else ""


def _json_array(text: str) -> list[str] | None:
    """The exec form; None for what is none. ChangeError for an array of something else."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise ChangeError("when using JSON array syntax, arrays must be comprised of strings only")
    return value


def _flags(name: str, text: str, known: Iterable[str] = ()) -> tuple[dict[str, str], str]:
    """The `--flag=value` words that an instruction begins with, and what follows them."""
    flags: dict[str, str] = {}
    while text.startswith("--"):
        word, *rest = text.split(maxsplit=1)
        text = rest[0] if rest else ""
        if word == "--":
            break
        flag, equals, value = word[2:].partition("=")
        if flag not in known:
            raise ChangeError(f"unknown flag: --{flag}", hint=f"{name} has {_listed(known)}")
        if not equals:
            raise ChangeError(f"missing a value on flag: {flag}")
        if flag in flags:
            raise ChangeError(f"duplicate flag specified: {flag}")
        flags[flag] = value
    return flags, text


def _listed(flags: Iterable[str]) -> str:
    return ", ".join(f"--{flag}" for flag in flags) or "no flags"


def _at_least_one(name: str, text: str) -> str:
    _, text = _flags(name, text)
    if not text:
        raise ChangeError(f"{name} requires at least one argument")
    return text


def _exactly_one(name: str, text: str) -> str:
    _, text = _flags(name, text)
    if not text:
        raise ChangeError(f"{name} requires exactly one argument")
    return text


def _pairs(name: str, text: str, env: Mapping[str, str]) -> list[tuple[str, str]]:
    """`a=1 b="2 3"`, or the old form `a any text`; expanded by the environment as it was before."""
    words = split_words(_at_least_one(name, text))
    if "=" not in words[0]:
        key, *value = re.split(r"\s+", text, maxsplit=1)
        if not value:
            raise ChangeError(f"{name} must have two arguments")
        pairs = [(key, value[0])]
    else:
        pairs = []
        for word in words:
            key, equals, value_text = word.partition("=")
            if not equals:
                raise ChangeError(
                    f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value',
                    hint="put quotes around a value that has spaces",
                )
            pairs.append((key, value_text))
    expanded = [(expand(key, env), expand(value, env)) for key, value in pairs]
    if any(not key for key, _ in expanded):
        raise ChangeError(f"{name} names can not be blank")
    return expanded


# The instructions ----------------------------------------------------------------------------------------------------
def _command_line(state: _State, name: str, text: str) -> list[str]:
    text = _at_least_one(name, text)
    array = _json_array(text)
    return [*state.shell, text] if array is None else array


def _cmd(state: _State, text: str) -> None:
    state.set("Cmd", _command_line(state, "CMD", text))
    state.cmd_set = True


def _entrypoint(state: _State, text: str) -> None:
    state.set("Entrypoint", _command_line(state, "ENTRYPOINT", text))
    # The old arguments were of another program (dispatchEntrypoint).
    if not state.cmd_set:
        state.set("Cmd", None)


def _env(state: _State, text: str) -> None:
    pairs = _pairs("ENV", text, state.env)
    env = list(state.config.get("Env") or ())
    for key, value in pairs:
        new = f"{key}={value}"
        place = next((i for i, old in enumerate(env) if old.partition("=")[0] == key), None)
        if place is None:
            env.append(new)
        else:
            env[place] = new
    state.set("Env", env)


def _label(state: _State, text: str) -> None:
    state.table("Labels").update(_pairs("LABEL", text, state.env))


def _expose(state: _State, text: str) -> None:
    words = [word for part in _at_least_one("EXPOSE", text).split() for word in expand_words(part, state.env)]
    state.table("ExposedPorts").update((port, {}) for word in sorted(words) for port in _ports(word))


def _ports(word: str) -> list[str]:
    """`80`, `53/udp`, `8000-8002`; what stands before a colon is of the host, and no matter of an image."""
    spec, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ChangeError(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
    first, dash, last = spec.partition("-")
    ends = [int(end) for end in (first, last if dash else first) if end.isascii() and end.isdigit()]
    if len(ends) != 2 or ends[0] > ends[1] or ends[1] > 65535:
        raise ChangeError(f"invalid containerPort: {spec}", hint="a port is 0 to 65535, a range FIRST-LAST")
    return [f"{port}/{protocol}" for port in range(ends[0], ends[1] + 1)]


def _user(state: _State, text: str) -> None:
    state.set("User", expand(_exactly_one("USER", text), state.env))


def _volume(state: _State, text: str) -> None:
    text = _at_least_one("VOLUME", text)
    array = _json_array(text)
    volumes = [expand(volume, state.env).strip() for volume in (text.split() if array is None else array)]
    if not volumes:
        raise ChangeError("VOLUME requires at least one argument")
    if "" in volumes:
        raise ChangeError("VOLUME specified can not be an empty string")
    state.table("Volumes").update((volume, {}) for volume in volumes)


def _workdir(state: _State, text: str) -> None:
    directory = expand(_exactly_one("WORKDIR", text), state.env)
    if not directory:
        raise ChangeError("cannot normalize nothing", hint="WORKDIR needs a path")
    if not directory.startswith("/"):
        directory = posixpath.normpath(posixpath.join("/", state.config.get("WorkingDir") or "", directory))
    state.set("WorkingDir", directory)


def _stopsignal(state: _State, text: str) -> None:
    name = expand(_exactly_one("STOPSIGNAL", text), state.env)
    known = {member.name.removeprefix("SIG") for member in signal.Signals}
    real_time = re.fullmatch(r"RTM(?:IN\+|AX-)(\d{1,2})", name.upper().removeprefix("SIG"))
    number = name.isascii() and name.isdigit() and int(name) > 0
    if not (number or name.upper().removeprefix("SIG") in known or (real_time and int(real_time[1]) <= 30)):
        raise ChangeError(f"invalid signal: {name}", hint="a number, or a name as SIGTERM")
    state.set("StopSignal", name)


def _onbuild(state: _State, text: str) -> None:
    text = _at_least_one("ONBUILD", text)
    trigger = text.split(maxsplit=1)[0].upper()
    if trigger == "ONBUILD":
        raise ChangeError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise ChangeError(f"{trigger} isn't allowed as an ONBUILD trigger")
    state.set("OnBuild", [*(state.config.get("OnBuild") or ()), text])


_HEALTH_FLAGS: Final = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _healthcheck(state: _State, text: str) -> None:
    """Durations are stored in nanoseconds, as Go's time.Duration."""
    flags, text = _flags("HEALTHCHECK", text, (*_HEALTH_FLAGS, "retries"))
    if not text:
        raise ChangeError("HEALTHCHECK requires at least one argument")
    kind, *rest = text.split(maxsplit=1)
    command = rest[0] if rest else ""
    if kind.upper() == "NONE":
        if command or flags:
            raise ChangeError("HEALTHCHECK NONE takes no arguments")
        state.set("Healthcheck", {"Test": ["NONE"]})
        return
    if kind.upper() != "CMD":
        raise ChangeError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    array = _json_array(command)
    if not command or array == []:
        raise ChangeError("Missing command after HEALTHCHECK CMD")
    health: dict[str, Any] = {"Test": ["CMD-SHELL", command] if array is None else ["CMD", *array]}
    for flag, key in _HEALTH_FLAGS.items():
        duration = _duration(flags.get(flag, ""))
        if 0 < duration < 1_000_000:
            raise ChangeError(f'Interval "{flag}" cannot be less than 1ms')
        if duration:
            health[key] = duration
    retries = flags.get("retries", "")
    if retries:
        if not re.fullmatch(r"[+-]?\d{1,9}", retries, re.ASCII):
            raise ChangeError(f"--retries is no number: {retries}")
        if int(retries) < 0:
            raise ChangeError(f"--retries cannot be negative ({retries})")
        if int(retries):
            health["Retries"] = int(retries)
    state.set("Healthcheck", health)


_UNITS: Final = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


def _duration(text: str) -> int:
    """Nanoseconds of a Go duration as "1m30s", "1.5h", "300ms"; 0 for none."""
    if text in ("", "0", "+0"):
        return 0
    body = text.removeprefix("+")
    parts = re.findall(r"(\d*\.?\d*)([^\d.]*)", body, re.ASCII)[:-1]  # the last is the empty match at the end
    if not parts or any(number in ("", ".") for number, _ in parts):
        raise ChangeError(f'time: invalid duration "{text}"', hint="30s, 5m, 1h30m")
    total = 0
    for number, unit in parts:
        if unit not in _UNITS:
            problem = f'unknown unit "{unit}"' if unit else "missing unit"
            raise ChangeError(f'time: {problem} in duration "{text}"', hint="30s, 5m, 1h30m")
        whole, _, fraction = number.partition(".")
        total += int(whole or 0) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    return total


_APPLY: Final[Mapping[str, Callable[[_State, str], None]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
