"""What a container was asked to be: the options of `run` as values, parsed, checked, and nothing looked up.

They are kept in the container's record, so they are plain: texts, numbers, tuples. Paths of the host are absolute.
`option_texts` makes them of what people write.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: host: the host's own. none: a loopback device and nothing else. private: a network of its own, behind the host's.
Network = Literal["host", "none", "private"]
Protocol = Literal["tcp", "udp"]


class Volume(NamedTuple):
    """`-v SOURCE:TARGET[:ro]`: a file or directory of the host at TARGET (absolute) in the container.

    `source` "": a directory of the container's own, with what the image has there (`-v TARGET`, VOLUME of an image).
    `propagation` as in mount_namespaces(7), of mounts below it: private, rprivate, slave, rslave, shared, rshared.
    """

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"


class Port(NamedTuple):
    """`-p [ADDRESS:]HOST[-LAST]:CONTAINER[/tcp|udp]`. `address` "" is any. `host` 0: one that is free. `last`, unless
    it is 0: one of `host` to `last` that is free."""

    address: str
    host: int
    container: int
    protocol: Protocol = "tcp"
    last: int = 0


class Settings(NamedTuple):
    """What differs from the image. None: as the image has it.

    `command` what stands behind the image's name; `entrypoint` () removes the image's. `environment` "K=V", later ones
    win; "K" alone removes the image's. `memory` bytes. `user` as docker's -u: NAME|UID[:GROUP|GID]. `terminal` -t,
    `interactive` -i. `no_new_privileges`: set-user-ID programs gain nothing.
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
    no_new_privileges: bool = False
