"""The seccomp profile of docker and podman, reduced to what one container's runtime is given."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from unionfs.containers.seccomp import load_profile, resolve
from unionfs.errors import ContainerError

X86 = os.uname_result(("Linux", "host", "6.1.0-13-amd64", "#1", "x86_64"))
ARM = os.uname_result(("Linux", "host", "4.4", "#1", "aarch64"))


def rule(name: str, *, action: str = "SCMP_ACT_ALLOW", **others: Any) -> dict[str, Any]:
    return {"names": [name], "action": action, "args": [], "comment": "", "includes": {}, "excludes": {}} | others


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        rule("read"),
        rule("nothing", names=[]),
        rule("x86", includes={"arches": ["amd64", "x32"]}),
        rule("no_x86", excludes={"arches": ["amd64"]}),
        rule("mount", includes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("mount", action="SCMP_ACT_ERRNO", errnoRet=1, errno="EPERM", excludes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("chroot", includes={"caps": ["CAP_SYS_CHROOT"]}),
        rule("both", includes={"caps": ["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]}),
        rule("ptrace", includes={"minKernel": "4.8"}),
        rule("old", excludes={"minKernel": "4.8"}),
        rule("personality", args=[{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]),
        {"name": "lonely", "action": "SCMP_ACT_ALLOW", "args": None},
    ],
}


def names(resolved: dict[str, Any]) -> list[str]:
    return [name for entry in resolved["syscalls"] for name in entry["names"]]


def test_rules_of_the_architecture_the_capabilities_and_the_kernel() -> None:
    found = resolve(PROFILE, ["CAP_SYS_CHROOT"], X86)
    assert names(found) == ["read", "x86", "mount", "chroot", "ptrace", "personality", "lonely"]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert (found["defaultAction"], found["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert found["syscalls"][2] == {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    assert found["syscalls"][5]["args"][0]["value"] == 8
    found = resolve(PROFILE, ["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"], ARM)
    assert names(found) == ["read", "no_x86", "mount", "chroot", "both", "old", "personality", "lonely"]
    assert found["syscalls"][2] == {"names": ["mount"], "action": "SCMP_ACT_ALLOW"}
    assert found["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


def test_machine_that_the_profile_does_not_know() -> None:
    found = resolve(PROFILE, [], os.uname_result(("Linux", "host", "odd", "#1", "vax")))
    assert "architectures" not in found and "read" in names(found) and "ptrace" not in names(found)


def test_first_profile_there_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert load_profile((str(first), str(second))) is None
    second.write_text(json.dumps(PROFILE))
    assert load_profile((str(first), str(second))) == PROFILE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 1}', "\xff"])
def test_profile_that_is_none_is_not_passed_over(tmp_path: Path, text: str) -> None:
    """Who has put one there wants a filter."""
    path = tmp_path / "seccomp.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ContainerError, match="is no seccomp profile"):
        load_profile((str(path),))
