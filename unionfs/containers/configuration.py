"""What a container's own configuration is: its image's, with what it was asked for (moby runconfig, Merge).

It is what an inspection of it shows, and what an image has that is made of it (`docker commit`). Pure. Not in it is
what a container has besides (`spec`): a default PATH, HOSTNAME, HOME, networks, mounts of the host's files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from unionfs.containers.settings import Settings


def configuration(settings: Settings, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, the object of that name in the image's configuration, as `settings` change it. What they leave is as it
    was, also what is not known here."""
    made = dict(config)
    if settings.entrypoint is not None:
        made["Entrypoint"], made["Cmd"] = list(settings.entrypoint) or None, None
    if settings.command:
        made["Cmd"] = list(settings.command)
    if settings.environment:
        made["Env"] = list(merged_environment(config.get("Env") or (), settings.environment).values())
    if settings.working_directory is not None:
        made["WorkingDir"] = settings.working_directory
    if settings.user is not None:
        made["User"] = settings.user
    if settings.ports:
        published: dict[str, Any] = {f"{port.container}/{port.protocol}": {} for port in settings.ports}
        made["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **published}
    own: dict[str, Any] = {volume.target: {} for volume in settings.volumes if not volume.source}
    if own:
        made["Volumes"] = {**(config.get("Volumes") or {}), **own}
    return {name: value for name, value in made.items() if value is not None or name in config}


def merged_environment(*of: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE by name, of lists the later of which win. A NAME alone is one that is not to be there."""
    found = {}
    for pair in (pair for pairs in of for pair in pairs):
        name, equals, _ = pair.partition("=")
        if equals:
            found[name] = pair
        else:
            found.pop(name, None)
    return found
