"""A container's configuration: what an image has that is made of it, and what is shown of it."""

from __future__ import annotations

from typing import Any

import pytest

from unionfs.containers.configuration import configuration
from unionfs.containers.settings import Port, Settings, Volume

IMAGE: dict[str, Any] = {
    "Entrypoint": ["/init"], "Cmd": ["serve"], "Env": ["PATH=/bin", "A=1", "B=1"], "User": "web", "WorkingDir": "/srv",
    "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "Labels": {"kind": "box"}, "StopSignal": "SIGINT",
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "differs"),
    [
        (Settings(), {}),
        (Settings(("once",)), {"Cmd": ["once"]}),
        (Settings(entrypoint=("sh",)), {"Entrypoint": ["sh"], "Cmd": None}),
        (Settings(("-c", "x"), entrypoint=("sh",)), {"Entrypoint": ["sh"], "Cmd": ["-c", "x"]}),
        (Settings(("ls",), entrypoint=()), {"Entrypoint": None, "Cmd": ["ls"]}),
        (Settings(environment=("A=2", "C=3", "B")), {"Env": ["PATH=/bin", "A=2", "C=3"]}),
        (Settings(user="0", working_directory="/"), {"User": "0", "WorkingDir": "/"}),
        (Settings(ports=(Port("", 8080, 53, "udp"),)), {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        (Settings(volumes=(Volume("/host", "/h"), Volume("", "/own"))), {"Volumes": {"/data": {}, "/own": {}}}),
    ],
)
def test_what_was_asked_for_changes_the_images(settings: Settings, differs: dict[str, Any]) -> None:
    assert configuration(settings, IMAGE) == {**IMAGE, **differs}


def test_of_an_image_that_says_nothing() -> None:
    assert configuration(Settings(("true",), entrypoint=(), user="7"), {}) == {"Cmd": ["true"], "User": "7"}
