"""A container as `docker container inspect` shows it: values in, one JSON object out.

What docker has and this has not (restarts, links, plugins) is there with the value that says so; times are RFC 3339.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from unionfs.containers import etc_files, spec
from unionfs.containers.configuration import configuration
from unionfs.containers.container import Container, Place, State
from unionfs.containers.logs import timestamp
from unionfs.containers.settings import Port

#: Go's zero time: never.
NEVER = "0001-01-01T00:00:00Z"
DRIVER = "unionfs"


def inspect(container: Container, state: State, place: Place, lowers: Sequence[str]) -> dict[str, Any]:
    """`lowers`: where its image's layers are, topmost first."""
    command = spec.arguments(container.settings, container.config)
    return {
        "Id": container.id,
        "Created": _time(container.created),
        "Path": command[0],
        "Args": command[1:],
        "State": _state(state),
        "Image": container.image,
        "ResolvConfPath": _text(place.directory, "resolv.conf"),
        "HostnamePath": _text(place.directory, "hostname"),
        "HostsPath": _text(place.directory, "hosts"),
        "LogPath": os.fsdecode(place.log),
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "Driver": DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container),
        "GraphDriver": {
            "Name": DRIVER,
            "Data": {
                "LowerDir": ":".join(lowers),
                "MergedDir": os.fsdecode(place.root),
                "UpperDir": os.fsdecode(place.upper),
                "WorkDir": os.fsdecode(place.work),
            },
        },
        "Mounts": _mounts(container, place),
        "Config": _config(container),
        "NetworkSettings": _network(container, state),
    }


def _state(state: State) -> dict[str, Any]:
    status = state.status
    return {
        "Status": status,
        "Running": status == "running",
        "Paused": False,
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.process.pid if status == "running" and state.process is not None else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": _time(state.started),
        "FinishedAt": _time(state.finished),
    }


def _host_config(container: Container) -> dict[str, Any]:
    settings = container.settings
    return {
        "Binds": [_bind(volume.source, volume.target, volume.read_only) for volume in settings.volumes] or None,
        "LogConfig": {"Type": "k8s-file", "Config": {}},
        "NetworkMode": settings.network,
        "PortBindings": _bindings(settings.ports),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": container.auto_remove,
        "CapAdd": None,
        "CapDrop": None,
        "Privileged": False,
        "PublishAllPorts": False,
        "ReadonlyRootfs": settings.read_only,
        "SecurityOpt": ["no-new-privileges"] if settings.no_new_privileges else None,
        "ShmSize": 65536 << 10,
        "Memory": settings.memory or 0,
        "MaskedPaths": list(spec.MASKED_PATHS),
        "ReadonlyPaths": list(spec.READONLY_PATHS),
    }


def _bind(source: str, target: str, read_only: bool) -> str:
    bind = f"{source}:{target}" if source else target
    return f"{bind}:ro" if read_only else bind


def _mounts(container: Container, place: Place) -> list[dict[str, Any]]:
    found = []
    for number, volume in enumerate(spec.volumes(container.settings, container.config)):
        own = os.path.join(os.fsdecode(place.directory), "volumes", str(number))
        found.append(
            {
                "Type": "bind" if volume.source else "volume",
                "Source": volume.source or own,
                "Destination": volume.target,
                "Mode": "ro" if volume.read_only else "",
                "RW": not volume.read_only,
                "Propagation": volume.propagation if volume.source else "",
            }
        )
    return found


def _config(container: Container) -> dict[str, Any]:
    settings = container.settings
    config = configuration(settings, container.config)
    return {
        "Hostname": container.hostname,
        "Domainname": "",
        "User": config.get("User") or "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": config.get("ExposedPorts") or {},
        "Tty": settings.terminal,
        "OpenStdin": settings.interactive,
        "StdinOnce": False,
        "Env": config.get("Env") or [],
        "Cmd": config.get("Cmd"),
        "Image": container.image_name,
        "Volumes": config.get("Volumes"),
        "WorkingDir": spec.working_directory(settings, config),
        "Entrypoint": config.get("Entrypoint"),
        "Labels": {**(config.get("Labels") or {}), **container.labels},
        "StopSignal": config.get("StopSignal") or "SIGTERM",
    }


def _network(container: Container, state: State) -> dict[str, Any]:
    private = container.settings.network == "private" and state.status == "running"
    exposed: dict[str, Any] = dict.fromkeys(container.config.get("ExposedPorts") or {})
    return {
        "Ports": {**exposed, **_bindings(state.ports)} if private else {},
        "IPAddress": etc_files.ADDRESS if private else "",
        "Networks": {container.settings.network: {"IPAddress": etc_files.ADDRESS if private else ""}},
    }


def _bindings(ports: Sequence[Port]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        host = "" if port.host == 0 else f"{port.host}-{port.last}" if port.last else str(port.host)
        key = f"{port.container}/{port.protocol}"
        found.setdefault(key, []).append({"HostIp": port.address, "HostPort": host})
    return found


def _time(seconds: float | None) -> str:
    return NEVER if seconds is None else timestamp(int(seconds * 1e9)).decode()


def _text(directory: bytes, name: str) -> str:
    return os.path.join(os.fsdecode(directory), name)
