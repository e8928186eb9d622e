"""`unionfs ps`: containers, as docker lists them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import typer

from unionfs import api

from . import human, template
from .image_ls import go_time
from .options import NoTrunc, Quiet, RowFormat, open_store, store_directory
from .output import text
from .style import printable

HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Mounts": "MOUNTS",
    "Labels": "LABELS",
    "Size": "SIZE",
}
TABLE = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
STATES = ("created", "running", "exited")


class Image(NamedTuple):
    """`layers`: diff_ids, base first."""

    id: str
    layers: tuple[str, ...]


def ps(
    context: typer.Context,
    all: Annotated[bool, typer.Option("-a", "--all", help="Those that do not run, too.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--filter",
            metavar="FILTER",
            help="id=, name=, status=created|running|exited, exited=N, ancestor=IMAGE, label=KEY[=VALUE], "
            "before=CONTAINER, since=CONTAINER. Repeat it.",
        ),
    ] = None,
    fmt: RowFormat = "table",
    last: Annotated[
        int, typer.Option("-n", "--last", metavar="N", help="The N newest, whatever they do.", show_default=False)
    ] = -1,
    latest: Annotated[bool, typer.Option("-l", "--latest", help="The newest, whatever it does.")] = False,
    no_trunc: NoTrunc = False,
    quiet: Quiet = False,
) -> None:
    """List containers that run, newest first."""
    containers = api.container_store(store_directory(context))
    found = api.list_containers(containers)
    wanted = _filters(filters or (), found)
    count = 1 if latest else last
    images = {name: _image(context, name) for name in wanted.get("ancestor", ())}
    fitting = [one for one in found if _fits(one, wanted, found, images)]
    if not (all or count >= 0 or "status" in wanted):
        fitting = [one for one in fitting if one.state.status == "running"]
    if count >= 0:
        fitting = fitting[:count]
    if quiet and fmt == "table":
        fmt = "{{.ID}}"
    now = datetime.now(UTC)
    rows = [_row(one, now, no_trunc) for one in fitting]
    for line in template.render(rows, fmt, default=TABLE, headings=HEADINGS):
        text(line)


def _filters(texts: list[str] | tuple[str, ...], found: list[api.FoundContainer]) -> dict[str, list[str]]:
    known = ("id", "name", "status", "exited", "ancestor", "label", "before", "since")
    wanted: dict[str, list[str]] = {}
    for one in texts:
        key, equals, value = one.partition("=")
        if not equals:
            raise typer.BadParameter(f"bad format of filter (expected name=value): {one}")
        if key not in known:
            raise typer.BadParameter(f"invalid filter '{key}'; there are {', '.join(known)}")
        if key == "status" and value not in STATES:
            raise typer.BadParameter(f"invalid filter 'status={value}'; there are {', '.join(STATES)}")
        if key == "exited" and not value.lstrip("-").isdigit():
            raise typer.BadParameter(f"invalid filter 'exited={value}': not a number")
        wanted.setdefault(key, []).append(value)
    return wanted


def _image(context: typer.Context, name: str) -> Image | None:
    try:
        found = open_store(context).resolve(name)
    except api.UnionFSError:
        return None
    return Image(str(found.id), tuple(map(str, found.diff_ids)))


def _fits(
    one: api.FoundContainer,
    wanted: dict[str, list[str]],
    everything: list[api.FoundContainer],
    images: Mapping[str, Image | None],
) -> bool:
    """Of several filters all, of several values of one any, as docker has it; all labels."""
    container, state = one
    tests: dict[str, Callable[[str], bool]] = {
        "id": lambda value: container.id.startswith(value),
        "name": lambda value: _matches(value, container.name) or _matches(value, f"/{container.name}"),
        "status": lambda value: state.status == value,
        "exited": lambda value: state.status == "exited" and state.exit_code == int(value),
        "ancestor": lambda value: _is_of(container, value) or _is_made_of(container, images[value]),
        "before": lambda value: container.created < _named(value, everything).container.created,
        "since": lambda value: container.created > _named(value, everything).container.created,
    }
    labels = _labels(container)
    for key, values in wanted.items():
        if key == "label":
            if not all(_has_label(labels, value) for value in values):
                return False
        elif not any(tests[key](value) for value in values):
            return False
    return True


def _matches(pattern: str, name: str) -> bool:
    """docker's filters.Args.Match: a regular expression, or the name itself; what is neither finds nothing."""
    try:
        return pattern == name or re.search(pattern, name) is not None
    except re.error:
        return False


def _is_of(container: api.Container, image: str) -> bool:
    name = container.image_name
    return image in (name, f"{name}:latest", name.removesuffix(":latest"), container.image) or (
        len(image) >= 4 and container.image.removeprefix("sha256:").startswith(image)
    )


def _is_made_of(container: api.Container, image: Image | None) -> bool:
    """Of that image, whatever it was called, or of one with its layers and more."""
    if image is None:
        return False
    begins = container.layers[: len(image.layers)] == image.layers
    return container.image == image.id or (begins and 0 < len(image.layers) < len(container.layers))


def _named(name: str, found: list[api.FoundContainer]) -> api.FoundContainer:
    for one in found:
        if one.container.name == name or one.container.id.startswith(name):
            return one
    raise typer.BadParameter(f"No such container: {name}")


def _labels(container: api.Container) -> dict[str, str]:
    return {**(container.config.get("Labels") or {}), **container.labels}


def _has_label(labels: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _row(one: api.FoundContainer, now: datetime, no_trunc: bool) -> dict[str, Any]:
    container, state = one
    command = _command(api.container_command(container))
    created = datetime.fromtimestamp(container.created, UTC)
    mounts = [volume.source or volume.target for volume in container.settings.volumes]
    return {
        "ID": container.id if no_trunc else container.short_id,
        "Image": container.image_name,
        "Command": _quoted(command if no_trunc else human.ellipsis(command, 20)),
        "CreatedAt": go_time(created),
        "RunningFor": human.since(created, now),
        "Status": status(state, now),
        "State": state.status,
        "Ports": ", ".join(_ports(container, state)) if state.status == "running" else "",
        "Names": container.name,
        "Networks": container.settings.network,
        "Mounts": ",".join(mounts),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(_labels(container).items())),
        "Size": "N/A",
    }


def status(state: api.ContainerState, now: datetime) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`, `Created`."""
    match state.status:
        case "created":
            return "Created"
        case "running":
            return "Up " + human.since(_moment(state.started), now).removesuffix(" ago")
        case _:
            return f"Exited ({state.exit_code}) {human.since(_moment(state.finished), now)}"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _command(words: list[str]) -> str:
    """docker's (moby daemon/container/view.go, transform): what has a space in it stands in quotes."""
    return " ".join([*words[:1], *(f"'{word}'" if " " in word else word for word in words[1:])])


def _quoted(text: str) -> str:
    """As Go's strconv.Quote."""
    escaped = text.translate({92: "\\\\", 34: '\\"', 10: "\\n", 9: "\\t", 13: "\\r"})
    return f'"{printable(escaped)}"'


def _ports(container: api.Container, state: api.ContainerState) -> list[str]:
    """docker/cli, DisplayablePorts: one behind the other are a range, if each is the same port of the host; those that
    the image exposes are there, too, and those of another number come last."""
    rows: list[tuple[int, str, int, str]] = [
        (port.container, port.address or "0.0.0.0", port.host, port.protocol) for port in state.ports
    ]
    taken = {(number, protocol) for number, _, _, protocol in rows}
    if container.settings.network == "private":
        rows += [
            (number, "", 0, protocol) for number, protocol in _exposed(container) if (number, protocol) not in taken
        ]
    found, others = [], []
    open_ranges: dict[tuple[str, str], list[int]] = {}
    for number, address, host, protocol in sorted(rows):
        if address and host != number:
            others.append(f"{address}:{host}->{number}/{protocol}")
            continue
        key = (address, protocol)
        if key in open_ranges and open_ranges[key][1] + 1 == number:
            open_ranges[key][1] = number
            continue
        if key in open_ranges:
            found.append(_range(*key, *open_ranges[key]))
        open_ranges[key] = [number, number]
    return found + [_range(*key, *ends) for key, ends in open_ranges.items()] + others


def _range(address: str, protocol: str, first: int, last: int) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{address}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _exposed(container: api.Container) -> list[tuple[int, str]]:
    """EXPOSE of the image: a number and a protocol each."""
    parts = [text.partition("/") for text in container.config.get("ExposedPorts") or {}]
    return [(int(number), protocol or "tcp") for number, _, protocol in parts if number.isascii() and number.isdigit()]
