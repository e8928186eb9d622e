"""A container's `config.json`: what of the image, of the options and of the host comes into it, as docker has it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unionfs.containers import spec
from unionfs.containers.settings import Settings, Volume
from unionfs.containers.spec import Surroundings, runtime_spec
from unionfs.containers.users import User
from unionfs.errors import ContainerError

GIVEN = Surroundings(b"/c/root", b"/c", "0123456789abcdef", "0123456789ab")


def made(
    settings: Settings | None = None, config: dict[str, Any] | None = None, given: Surroundings = GIVEN
) -> dict[str, Any]:
    return runtime_spec(settings or Settings(("true",)), config or {}, given)


def mount(made: dict[str, Any], target: str) -> dict[str, Any]:
    """The one mount on `target`."""
    (found,) = [mount for mount in made["mounts"] if mount["destination"] == target]
    return dict(found)


COMMANDS: list[tuple[dict[str, Any], Settings, list[str]]] = [
    ({"Cmd": ["sh"]}, Settings(), ["sh"]),
    ({"Cmd": ["sh"]}, Settings(("ls", "/")), ["ls", "/"]),
    ({"Entrypoint": ["/init"], "Cmd": ["a"]}, Settings(), ["/init", "a"]),
    ({"Entrypoint": ["/init"], "Cmd": ["a"]}, Settings(("b",)), ["/init", "b"]),
    ({"Entrypoint": ["/init"], "Cmd": ["a"]}, Settings(entrypoint=("/bin/sh",)), ["/bin/sh"]),  # docker drops Cmd
    ({"Entrypoint": ["/init"], "Cmd": ["a"]}, Settings(("-c", "x"), entrypoint=("sh",)), ["sh", "-c", "x"]),
    ({"Entrypoint": ["/init"]}, Settings(("b",), entrypoint=()), ["b"]),
    ({"Entrypoint": ["/init"]}, Settings(), ["/init"]),
]


@pytest.mark.parametrize(("config", "settings", "expected"), COMMANDS)
def test_command_of_the_image_and_of_the_caller(
    config: dict[str, Any], settings: Settings, expected: list[str]
) -> None:
    assert made(settings, config)["process"]["args"] == expected


@pytest.mark.parametrize("config", [{}, {"Cmd": None, "Entrypoint": None}, {"Cmd": []}])
def test_image_without_a_command_needs_one(config: dict[str, Any]) -> None:
    with pytest.raises(ContainerError, match="no command specified"):
        made(Settings(), config)


def test_image_command_alone_does_not_survive_an_entrypoint_of_the_caller() -> None:
    with pytest.raises(ContainerError, match="no command specified"):
        made(Settings(entrypoint=()), {"Entrypoint": ["/init"], "Cmd": ["a"]})


def test_environment_in_dockers_order_the_last_one_wins() -> None:
    settings = Settings(("env",), environment=("B=2", "C=3", "B=4", "GONE"))
    found = made(settings, {"Env": ["A=1", "B=1", "GONE=x", "EMPTY="]})["process"]["env"]
    assert found == [spec.DEFAULT_PATH, "HOSTNAME=0123456789ab", "A=1", "B=4", "EMPTY=", "C=3", "HOME=/"]


def test_environment_of_the_image_goes_before_the_defaults() -> None:
    given = GIVEN._replace(user=User(home="/root"))
    found = made(Settings(("env",)), {"Env": ["PATH=/bin", "HOME=/srv"]}, given)["process"]["env"]
    assert found == ["PATH=/bin", "HOSTNAME=0123456789ab", "HOME=/srv"]


def test_terminal_has_a_term() -> None:
    with_terminal = made(Settings(("sh",), terminal=True))["process"]
    assert with_terminal["terminal"] and "TERM=xterm" in with_terminal["env"]
    without = made(Settings(("sh",)))["process"]
    assert not without["terminal"] and not any(pair.startswith("TERM=") for pair in without["env"])
    assert "TERM=vt100" in made(Settings(("sh",), terminal=True, environment=("TERM=vt100",)))["process"]["env"]


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [(None, None, "/"), ("/srv", None, "/srv"), ("/srv", "/tmp", "/tmp"), ("srv", None, "/srv"),
     ("/a/../b//", None, "/b"), ("//srv", None, "/srv"), ("/../..", None, "/"), ("/srv", "www", "/www")],
)  # fmt: skip
def test_working_directory(config: str | None, asked: str | None, expected: str) -> None:
    settings = Settings(("true",), working_directory=asked)
    assert made(settings, {"WorkingDir": config})["process"]["cwd"] == expected


def test_root_user_has_dockers_capabilities_and_nobody_else_has_any() -> None:
    root = made()["process"]["capabilities"]
    assert root["effective"] == root["permitted"] == root["bounding"] == list(spec.CAPABILITIES)
    assert "inheritable" not in root and "ambient" not in root and "CAP_SYS_ADMIN" not in root["bounding"]
    other = made(given=GIVEN._replace(user=User(1000, 1000, (1000,))))["process"]
    assert other["capabilities"] == {"bounding": list(spec.CAPABILITIES)}
    assert other["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000]}


def test_mounts_are_dockers() -> None:
    found = made(given=GIVEN._replace(cgroup="/unionfs/x"))
    kinds = {mount["destination"]: mount["type"] for mount in found["mounts"]}
    assert kinds == {
        "/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue", "/dev/shm": "tmpfs",
        "/sys": "sysfs", "/sys/fs/cgroup": "cgroup",
        "/etc/hosts": "bind", "/etc/hostname": "bind", "/etc/resolv.conf": "bind",
    }  # fmt: skip
    assert "ro" in mount(found, "/sys")["options"] and "ro" in mount(found, "/sys/fs/cgroup")["options"]
    assert mount(found, "/etc/hosts")["source"] == "/c/hosts" and "rw" in mount(found, "/etc/hosts")["options"]
    assert "/proc/kcore" in found["linux"]["maskedPaths"] and "/proc/sys" in found["linux"]["readonlyPaths"]


def test_read_only_root_and_writable_volumes() -> None:
    settings = Settings(("true",), read_only=True, volumes=(Volume("/h", "/data"), Volume("/i", "/ro", True)))
    found = made(settings)
    assert found["root"] == {"path": "/c/root", "readonly": True}
    assert "ro" in mount(found, "/etc/resolv.conf")["options"]
    assert "rw" in mount(found, "/data")["options"] and "ro" in mount(found, "/ro")["options"]


def test_volumes_of_the_image_lie_in_the_containers_directory_unless_told_otherwise() -> None:
    settings = Settings(("true",), volumes=(Volume("/h", "/b/c"), Volume("/x", "/dev/shm"), Volume("", "/b-c")))
    config: dict[str, Any] = {"Volumes": {"/b": {}, "b/c/": {}, "/": {}}}
    given = GIVEN._replace(volumes={"/b": "/c/volumes/0", "/b-c": "/c/volumes/1"})
    binds = [mount for mount in made(settings, config, given)["mounts"] if mount["type"] == "bind"]
    found = [(one["destination"], one["source"]) for one in binds if not one["destination"].startswith("/etc/")]
    # what lies below comes after what it lies in
    assert found == [("/b", "/c/volumes/0"), ("/b/c", "/h"), ("/b-c", "/c/volumes/1"), ("/dev/shm", "/x")]
    assert mount(made(settings, config, given), "/dev/shm")["type"] == "bind"


def test_hosts_file_of_the_caller() -> None:
    settings = Settings(("true",), volumes=(Volume("/h", "/etc/hosts"),))
    assert mount(made(settings), "/etc/hosts")["source"] == "/h"


def test_volume_above_files_of_etc_is_mounted_before_them() -> None:
    settings = Settings(("true",), volumes=(Volume("/conf", "/etc"), Volume("/h", "/etc/hosts"), Volume("/d", "/data")))
    targets = [mount["destination"] for mount in made(settings)["mounts"]]
    assert [target for target in targets if target.startswith(("/etc", "/data"))] == [
        "/data", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
    ]  # fmt: skip
    assert mount(made(settings), "/etc/hosts")["source"] == "/h"


def test_volume_in_the_place_of_dev_is_all_there_is_of_dev() -> None:
    targets = [mount["destination"] for mount in made(Settings(("true",), volumes=(Volume("/dev", "/dev"),)))["mounts"]]
    assert [target for target in targets if target.startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("rprivate",), None),
        (("rprivate", "slave"), "rslave"),
        (("rslave", "rshared"), "shared"),
        (("shared",), "shared"),
    ],
)
def test_propagation_of_a_volume_needs_that_of_the_root(kinds: tuple[str, ...], expected: str | None) -> None:
    volumes = tuple(Volume("/h", f"/{kind}", propagation=kind) for kind in kinds)
    found = made(Settings(("true",), volumes=volumes))
    assert found["linux"].get("rootfsPropagation") == expected
    assert [mount(found, volume.target)["options"][1] for volume in volumes] == list(kinds)


def namespaces(found: dict[str, Any]) -> dict[str, str | None]:
    return {entry["type"]: entry.get("path") for entry in found["linux"]["namespaces"]}


def test_networks() -> None:
    common: dict[str, str | None] = dict.fromkeys(("pid", "ipc", "uts", "mount"))
    assert namespaces(made(Settings(("true",), network="host"))) == common
    assert namespaces(made(Settings(("true",), network="none"))) == common | {"network": None}
    assert namespaces(made(Settings(("true",)))) == common | {"network": None}
    given = GIVEN._replace(network_namespace="/run/n")
    assert namespaces(made(given=given)) == common | {"network": "/run/n"}
    assert "sysctl" not in made(Settings(("true",), network="host"))["linux"]
    assert made()["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"


def test_without_a_cgroup_there_are_no_resources() -> None:
    settings = Settings(("true",), memory=64 << 20)
    linux = made(settings)["linux"]
    assert not {"resources", "cgroupsPath"} & linux.keys() and "cgroup" not in namespaces(made(settings))
    given = GIVEN._replace(cgroup="/unionfs/x")
    linux = made(settings, given=given)["linux"]
    assert linux["cgroupsPath"] == "/unionfs/x" and linux["resources"]["memory"] == {"limit": 64 << 20}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert namespaces(made(settings, given=given)).keys() >= {"cgroup"}
    linux = made(settings, given=given._replace(swap_limits=True))["linux"]
    assert linux["resources"]["memory"] == {"limit": 64 << 20, "swap": 128 << 20}


def test_rootless() -> None:
    one = GIVEN._replace(rootless=True, ids=1, user=User(0, 0, (0, 27)))
    found = made(given=one)
    assert not any(option.startswith("gid=") for option in mount(found, "/dev/pts")["options"])
    assert found["process"]["user"]["additionalGids"] == [0]
    assert found["linux"]["sysctl"]["net.ipv4.ping_group_range"] == "0 0"
    assert mount(found, "/sys")["type"] == "sysfs"
    host = made(Settings(("true",), network="host"), given=one._replace(ids=65536))
    assert "gid=5" in mount(host, "/dev/pts")["options"]
    assert mount(host, "/sys")["source"] == "/sys" and "ro" in mount(host, "/sys")["options"]


def test_no_new_privileges_and_seccomp_are_as_given() -> None:
    assert made()["process"]["noNewPrivileges"] is False and "seccomp" not in made()["linux"]
    assert made(Settings(("true",), no_new_privileges=True))["process"]["noNewPrivileges"] is True
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert made(given=GIVEN._replace(seccomp=profile))["linux"]["seccomp"] == profile


def test_names_that_are_not_utf8_stay_their_bytes() -> None:
    encoded = spec.encode(made(given=GIVEN._replace(root=b"/c/\xff\xc3\xa9", directory=b"/c/\xfe")))
    assert b'"/c/\xff\xc3\xa9"' in encoded and b'"/c/\xfe/hosts"' in encoded
    assert json.loads(encoded.decode("utf-8", "surrogateescape"))["hostname"] == "0123456789ab"
