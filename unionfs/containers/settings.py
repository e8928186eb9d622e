"""What a container was asked to be: the options of `run` as values, parsed, checked, and nothing looked up.

They are kept in the container's record, so they are plain: texts, numbers, tuples. Paths of the host are absolute.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: host: the host's own. none: a loopback device and nothing else. private: a network of its own, behind the host's.
Network = Literal["host", "none", "private"]


class Volume(NamedTuple):
    """`-v SOURCE:TARGET[:ro]`: a file or directory of the host at TARGET (absolute) in the container."""

    source: str
    target: str
    read_only: bool = False


class Port(NamedTuple):
    """`-p [ADDRESS:]HOST:CONTAINER[/tcp|udp]`. `address` "" is any. `host` 0: one that is free."""

    address: str
    host: int
    container: int
    protocol: Literal["tcp", "udp"] = "tcp"


class Settings(NamedTuple):
    """What differs from the image. None: as the image has it.

    `command` what stands behind the image's name; `entrypoint` () removes the image's. `environment` "K=V", later ones
    win. `memory` bytes. `user` as docker's -u: NAME|UID[:GROUP|GID]. `terminal` -t, `interactive` -i.
    """

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()
    working_directory: str | None = None
    user: str | None = None
    hostname: str | None = None
    volumes: tuple[Volume, ...] = ()
    ports: tuple[Port, ...] = ()
    network: Network = "private"
    memory: int | None = None
    read_only: bool = False
    terminal: bool = False
    interactive: bool = False
