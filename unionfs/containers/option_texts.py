"""Options of `run` as people write them, made into the values of `settings`. The forms and the errors are docker's.

    -v  SOURCE:TARGET[:ro,…]  TARGET                     volumes
    -p  [[ADDRESS:][HOST]:]CONTAINER[/tcp|/udp]          ports; ranges as 8000-8003: of both sides, as long as each
                                                         other, or of HOST alone, of which one is taken then
    -e  KEY=VALUE  KEY        --env-file FILE            environment
    --memory  512m                                       memory
    STOPSIGNAL, --signal      TERM  SIGTERM  15  RTMIN+3 signal_number

Whatever is wrong is an OptionError. What depends on the caller (environment, directory) is given; no file is looked at.
"""

from __future__ import annotations

import os
import posixpath
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from unionfs.containers.settings import Port, Protocol, Volume
from unionfs.errors import OptionError

#: Bytes. moby daemon/daemon_unix.go, linuxMinMemory.
MIN_MEMORY: Final = 6 << 20
_MAX_MEMORY: Final = (1 << 63) - 1
_MAX_PORT: Final = 65535

_PROPAGATIONS: Final = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
#: Heeded by nobody here: SELinux labels (where there is no SELinux), and what Docker Desktop and volume drivers know.
_WITHOUT_MEANING: Final = frozenset(("z", "Z", "cached", "delegated", "consistent", "nocopy"))


def volumes(texts: Iterable[str], directory: str | None) -> tuple[Volume, ...]:
    """`-v`. A source that begins with `.` is relative to `directory` (absolute; None: it was removed)."""
    found: dict[str, Volume] = {}
    for text in texts:
        volume = _volume(text, directory)
        if volume.target in found:
            raise OptionError(f"duplicate mount point: {volume.target}")
        found[volume.target] = volume
    return tuple(found.values())


def _volume(text: str, directory: str | None) -> Volume:
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise OptionError(f"invalid volume specification: {text!r}", hint="SOURCE:TARGET[:ro]")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    if not target.startswith("/"):
        raise OptionError(f"invalid volume specification: {text!r}: invalid mount path: {target!r} must be absolute")
    target = "/" + posixpath.normpath(target).lstrip("/")
    if target == "/":
        raise OptionError(f"invalid volume specification: {text!r}: destination can't be '/'")
    volume = Volume(_source(source, directory), target)
    return _with_mode(volume, text, parts[2]) if len(parts) > 2 else volume


def _source(source: str, directory: str | None) -> str:
    if not source or source.startswith("/"):
        return source and os.path.normpath(source)
    if source in (".", "..") or source.startswith(("./", "../")):
        if directory is None:
            raise OptionError(f"{source} is relative, and there is no working directory", hint="it was removed: cd")
        return os.path.normpath(os.path.join(directory, source))
    raise OptionError(
        f"{source} would be a named volume, and there are none here",
        hint=f"give a directory: /{source} or ./{source}",
    )


def _with_mode(volume: Volume, text: str, mode: str) -> Volume:
    """docker's linux mount parser: each kind once, ro and rw not both."""
    access: set[str] = set()
    propagation: set[str] = set()
    for option in mode.split(","):
        if option in ("ro", "rw"):
            access.add(option)
        elif option in _PROPAGATIONS:
            propagation.add(option)
        elif option not in _WITHOUT_MEANING:
            raise OptionError(f"invalid mode: {mode}", hint=f"ro or rw, in {text!r}")
    if len(access) > 1 or len(propagation) > 1:
        raise OptionError(f"invalid mode: {mode}", hint="one of ro and rw, and one kind of propagation")
    if propagation and not volume.source:
        raise OptionError(f"invalid mode: {mode}: a volume without a source has no propagation")
    return volume._replace(read_only=access == {"ro"}, propagation=(propagation or {"rprivate"}).pop())


def ports(texts: Iterable[str]) -> tuple[Port, ...]:
    """`-p`. A port of the host given twice is one; of what leaves the choice there are as many as were given."""
    found: list[Port] = []
    for port in (port for text in texts for port in _ports(text)):
        if port.host == 0 or port.last or port not in found:
            found.append(port)
    return tuple(found)


def _ports(text: str) -> Iterator[Port]:
    """docker/go-connections nat, ParsePortSpec."""
    spec, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    rest, _, container = spec.rpartition(":")
    address, _, host = rest.rpartition(":")
    if not container:
        raise OptionError(f"no port specified: {text}<empty>", hint="[[ADDRESS:]HOST:]CONTAINER[/udp]")
    if protocol not in ("tcp", "udp"):
        raise OptionError(f"invalid proto: {protocol}", hint="tcp or udp")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise OptionError(f"invalid IP address: {address}", hint="an IPv6 address stands in brackets: [::1]:80:80")
    if address:
        import ipaddress  # here, since most have none

        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise OptionError(f"invalid IP address: {address}") from None
    first, last = _port_range(container, f"invalid containerPort: {container}")
    if first == 0:
        raise OptionError(f"invalid containerPort: {container}")
    begin, end = _port_range(host, f"invalid hostPort: {host}") if host else (0, 0)
    if begin < end and first == last:
        yield Port(address, begin, first, cast(Protocol, protocol), end)
        return
    if begin and end - begin != last - first:
        raise OptionError(
            f"invalid ranges specified for container and host Ports: {container} and {host}",
            hint="two ranges of the same length, or one port of the container",
        )
    for step in range(last - first + 1):
        yield Port(address, begin + step if begin else 0, first + step, cast(Protocol, protocol))


def _port_range(text: str, complaint: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    if not (re.fullmatch(r"[0-9]{1,5}", first) and re.fullmatch(r"[0-9]{1,5}", last)):
        raise OptionError(complaint)
    numbers = int(first), int(last)
    if not numbers[0] <= numbers[1] <= _MAX_PORT or (dash and not numbers[0]):
        raise OptionError(complaint)
    return numbers


def environment(texts: Iterable[str], own: Mapping[str, str]) -> tuple[str, ...]:
    """`-e`. A name alone has the value of the caller's `own` environment; without one there, it is as in Settings."""
    found = []
    for text in texts:
        name, equals, _ = text.partition("=")
        if not name or "\0" in text:
            raise OptionError(f"invalid environment variable: {text}")
        found.append(text if equals or name not in own else f"{name}={own[name]}")
    return tuple(found)


def environment_file(data: bytes, name: str, own: Mapping[str, str]) -> tuple[str, ...]:
    """`--env-file`: the lines of a file, in docker's rules (docker/cli opts, parseKeyValueFile): no quotes, no blanks
    before the value taken away, `#` begins a comment in the first column."""
    found = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            raise OptionError(f"{name}: invalid utf8 bytes at line {number}: {line.decode(errors='replace')}") from None
        if not text or text.startswith("#"):
            continue
        variable, equals, _ = text.partition("=")
        if not variable:
            raise OptionError(f"{name}: no variable name on line '{text}'")
        if any(character.isspace() for character in variable):
            raise OptionError(f"{name}: variable '{variable}' contains whitespaces")
        if equals:
            found.append(text)
        elif variable in own:
            found.append(f"{variable}={own[variable]}")
    return environment(found, own)


_SIZE: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(?:([kmgtp])i?)?b?", re.IGNORECASE)


def memory(text: str) -> int | None:
    """`--memory`: bytes; None for 0, which is no limit."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise OptionError(f"invalid size: '{text}'", hint="a number with b, k, m or g behind it: 64m")
    number, unit = found.groups()
    size = int(float(number) * (1 << (10 * (1 + "kmgtp".index(unit.lower())) if unit else 0)))
    if size > _MAX_MEMORY:
        raise OptionError(f"invalid size: '{text}'")
    if size and size < MIN_MEMORY:
        raise OptionError("Minimum memory limit allowed is 6MB", hint="--memory 6m or more")
    return size or None


_SIGNAL: Final = re.compile(r"(?:SIG)?(?:(?P<edge>RTMIN|RTMAX)(?P<offset>[+-][0-9]{1,2})?|(?P<name>[A-Z0-9]+))")


def signal_number(text: str) -> int:
    """A signal by number or name, with or without SIG; RTMIN+N and RTMAX-N too (moby/sys signal.ParseSignal)."""
    wanted = text.strip().upper()
    number = 0
    if re.fullmatch(r"[0-9]{1,3}", wanted):
        number = int(wanted)
    elif found := _SIGNAL.fullmatch(wanted):
        if found["edge"]:
            edge = signal.SIGRTMIN if found["edge"] == "RTMIN" else signal.SIGRTMAX
            number = edge + int(found["offset"] or 0)
            number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
        else:
            # A handler's name (SIG_DFL, …) has an underscore, which the pattern lets none have.
            number = signal.Signals.__members__.get(f"SIG{found['name']}", 0)
    if not 0 < number <= signal.SIGRTMAX:
        raise OptionError(f"invalid signal: {text}")
    return number
