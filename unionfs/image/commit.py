"""New configurations: what the image of one more layer says of itself (moby image.NewChildImage), as bytes.

A `Step` is one entry of the history, with the layer it made, if it made one. `child` adds steps to a configuration, or
begins one; what the old one says and nothing here is about stays in it (docker's own fields of the container that it
was made of do not). The bytes are the image's identity: the same steps at the same time give the same image.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from unionfs.image import platforms
from unionfs.image.mutate import changed

#: What docker says of how it made an image, which is not how this one is made (image-spec config.md does not have it).
_OF_ITS_MAKING: Final = ("comment", "container", "container_config", "id", "parent", "docker_version")
#: Between seconds and nanoseconds.
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """How an image came to be what it is. `diff_id` None: nothing changed but the configuration (`empty_layer`)."""

    diff_id: str | None
    created_by: str
    comment: str = ""
    author: str = ""


def now(epoch: int | None = None) -> str:
    """The time (or `epoch`, SOURCE_DATE_EPOCH) as configurations write it: RFC 3339, UTC, with nanoseconds if any."""
    seconds, nanoseconds = divmod(time.time_ns() if epoch is None else epoch * _SECOND, _SECOND)
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def child(
    base: Mapping[str, Any] | None,
    steps: Iterable[Step],
    *,
    created: str,
    author: str = "",
    changes: Iterable[str] = (),
    platform: str | None = None,
) -> bytes:
    """The configuration of `base` (None: of nothing) after `steps`, the oldest first, and `changes` (as `commit -c`).

    `created` as `now` gives it. `platform` ("os/arch[/variant]") replaces what the base says; a new configuration is
    of this machine's. ChangeError for what is no change.
    """
    config: dict[str, Any] = {key: value for key, value in (base or {}).items() if key not in _OF_ITS_MAKING}
    if base is None or platform is not None:
        wanted = platforms.host() if platform is None else platforms.parse(platform)
        config |= {"architecture": wanted.architecture, "os": wanted.os}
        config.pop("variant", None)
        if "/" in str(wanted).partition("/")[2]:
            config["variant"] = wanted.variant
    rootfs = config.get("rootfs") or {}
    diff_ids = list(rootfs.get("diff_ids") or ())
    history = _complete(config.get("history") or (), len(diff_ids))
    for step in steps:
        history.append(_entry(step, created))
        if step.diff_id is not None:
            diff_ids.append(step.diff_id)
    config["created"] = created
    config["author"] = author
    config["config"] = changed(config.get("config") or {}, changes)
    config["rootfs"] = dict(rootfs) | {"type": "layers", "diff_ids": diff_ids}
    config["history"] = history
    if not author:
        del config["author"]
    return json.dumps(config, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _complete(history: Iterable[Mapping[str, Any]], layers: int) -> list[Mapping[str, Any]]:
    """The history, with one entry a layer: an image need not have any, but then it would tell of ours alone."""
    found = list(history)
    known = sum(not entry.get("empty_layer") for entry in found)
    return [*({} for _ in range(layers - known)), *found]


def _entry(step: Step, created: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"created": created, "created_by": step.created_by}
    if step.author:
        entry["author"] = step.author
    if step.comment:
        entry["comment"] = step.comment
    if step.diff_id is None:
        entry["empty_layer"] = True
    return entry
