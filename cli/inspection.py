"""What `inspect` shows of images and containers: all of it as JSON, or what a template asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from . import template
from .output import text

#: A configuration's fields, as docker's types have them (image-spec's and moby's container.Config): of each, what it is
#: where nothing is said.
CONFIG: Final[dict[str, Any]] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "ExposedPorts": {}, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": [], "Cmd": [], "Healthcheck": None,
    "Image": "", "Volumes": {}, "WorkingDir": "", "Entrypoint": [], "OnBuild": [], "Labels": {}, "StopSignal": "",
    "StopTimeout": None, "Shell": [],
}  # fmt: skip
IMAGE: Final[dict[str, Any]] = {
    "RepoTags": [], "RepoDigests": [], "Parent": "", "Comment": "", "Created": "", "DockerVersion": "", "Author": "",
    "Config": CONFIG, "Architecture": "", "Variant": "", "Os": "", "OsVersion": "", "RootFS": {"Layers": []},
}  # fmt: skip
CONTAINER: Final[dict[str, Any]] = {"Config": CONFIG}


def show(found: Sequence[dict[str, Any]], fmt: str | None) -> None:
    """`fmt`: json, a template, or for all of it, indented, None or "". BadParameter for what is no template."""
    if not fmt:
        text(json.dumps(found, indent=4, ensure_ascii=False))
    elif fmt == "json":
        text(template.go_json(found))
    else:
        of_image, of_container = (template.parse(fmt, zeros=zeros) for zeros in (IMAGE, CONTAINER))
        for one in found:
            text(template.fill(of_image if "RootFS" in one else of_container, one))
