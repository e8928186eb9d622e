"""`container_settings`, `execution`: options as people write them, made into what a container is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

from unionfs.containers import option_texts
from unionfs.containers.executed import Execution
from unionfs.containers.settings import Network, Settings
from unionfs.errors import OptionError

#: HOST_NAME_MAX (sethostname(2)).
_LONGEST_HOSTNAME: Final = 64

NETWORKS: tuple[Network, ...] = ("private", "host", "none")


def container_settings(
    command: Sequence[str] = (),
    *,
    entrypoint: str | None = None,
    environment: Iterable[str] = (),
    environment_files: Iterable[str] = (),
    volumes: Iterable[str] = (),
    ports: Iterable[str] = (),
    network: str = "private",
    memory: str | None = None,
    working_directory: str | None = None,
    user: str | None = None,
    hostname: str | None = None,
    read_only: bool = False,
    terminal: bool = False,
    interactive: bool = False,
    no_new_privileges: bool = False,
) -> Settings:
    """Each in docker's form, where a text of no length is as none, but for `entrypoint`. OptionError for what makes no
    sense."""
    if network not in NETWORKS:
        raise OptionError(f"network {network} not found", hint=f"one of {', '.join(NETWORKS)}")
    published = option_texts.ports(ports)
    if published and network != "private":
        raise OptionError(
            f"conflicting options: port publishing and the network {network}", hint="leave out -p, or --network"
        )
    own = dict(os.environ)
    listed = [pair for path in environment_files for pair in _environment_file(path)]
    settings = Settings(
        command=tuple(command),
        entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
        environment=(*listed, *option_texts.environment(environment, own)),
        working_directory=_absolute(working_directory),
        user=user or None,
        hostname=_hostname(hostname),
        volumes=option_texts.volumes(volumes, _working_directory()),
        ports=published,
        network=network,
        memory=None if memory is None else option_texts.memory(memory),
        read_only=read_only,
        terminal=terminal,
        interactive=interactive,
        no_new_privileges=no_new_privileges,
    )
    _check_texts((*settings.command, *(settings.entrypoint or ()), *settings.environment))
    _check_texts((working_directory or "", user or ""))
    _check_texts(path for volume in settings.volumes for path in (volume.source, volume.target))
    return settings


def _check_texts(texts: Iterable[str]) -> None:
    """OptionError for what is not UTF-8, as a runtime's config.json is: crun refuses it, runc replaces it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise OptionError(f"not UTF-8, which runtimes are told in: {text}") from None


def _hostname(name: str | None) -> str | None:
    """docker takes whatever sethostname(2) does; but it stands in a line of /etc/hosts."""
    if name and (len(name.encode("utf-8", "surrogateescape")) > _LONGEST_HOSTNAME or not _is_word(name)):
        raise OptionError(f"invalid hostname: {name}", hint=f"{_LONGEST_HOSTNAME} characters at most, and no spaces")
    return name or None


def _is_word(text: str) -> bool:
    return all(character.isprintable() and not character.isspace() for character in text)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _absolute(directory: str | None) -> str | None:
    if directory and not directory.startswith("/"):
        raise OptionError(f"the working directory '{directory}' is invalid, it needs to be an absolute path")
    return directory or None


def _environment_file(path: str) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            return option_texts.environment_file(file.read(), path, dict(os.environ))
    except OSError as error:
        raise OptionError(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def execution(
    command: Sequence[str],
    *,
    environment: Iterable[str] = (),
    environment_files: Iterable[str] = (),
    user: str | None = None,
    working_directory: str | None = None,
    terminal: bool = False,
    interactive: bool = False,
    detach: bool = False,
) -> Execution:
    """What `execute` is asked for. OptionError for what makes no sense."""
    listed = [pair for path in environment_files for pair in _environment_file(path)]
    asked = Execution(
        tuple(command),
        (*listed, *option_texts.environment(environment, dict(os.environ))),
        _absolute(working_directory),
        user or None,
        terminal,
        interactive,
        detach,
    )
    _check_texts((*asked.command, *asked.environment, asked.working_directory or "", asked.user or ""))
    return asked
