"""The seccomp profile that containers of docker and podman have, resolved for one container.

The profile is a file of Debian's golang-github-containers-common (containers-common elsewhere), which podman uses too.
It is more than the runtime's `linux.seccomp` (runtime-spec config-linux.md): rules are for some architectures,
capabilities or kernels only (containers/common pkg/seccomp, types.go; moby profiles/seccomp). `resolve` is that
reduction. Where the file is missing there is no filter: capabilities and namespaces hold all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from typing import Any, Final

from unionfs.errors import ContainerError

#: In the order podman looks (containers/common pkg/config).
PATHS: Final = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")

#: uname(2)'s machine, in the words of the profile: libseccomp's, and Go's.
_ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "armv7l": ("SCMP_ARCH_ARM", "arm"),
    "i686": ("SCMP_ARCH_X86", "386"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
}


def load_profile(paths: Collection[str] = PATHS) -> Mapping[str, Any] | None:
    """The first profile there is; None where there is none. ContainerError for one that is not JSON."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                profile = json.load(file)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ContainerError(f"{path} is no seccomp profile: {error}", hint="mend or remove it") from None
        if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
            raise ContainerError(f"{path} is no seccomp profile: it has no defaultAction", hint="mend or remove it")
        return profile
    return None


def resolve(profile: Mapping[str, Any], capabilities: Collection[str], machine: os.uname_result) -> dict[str, Any]:
    """`linux.seccomp` of a container with these capabilities ("CAP_…") on this machine."""
    scmp, go = _ARCHITECTURES.get(machine.machine, (None, machine.machine))
    resolved: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    architectures = [*(profile.get("architectures") or ())]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == scmp:
            architectures += [scmp, *(entry.get("subArchitectures") or ())]
    if architectures:
        resolved["architectures"] = architectures
    if profile.get("flags"):
        resolved["flags"] = profile["flags"]
    kernel = _kernel(machine.release)
    rules = (_rule(rule) for rule in profile.get("syscalls") or () if _applies(rule, go, set(capabilities), kernel))
    resolved["syscalls"] = [rule for rule in rules if rule["names"]]
    return resolved


def _applies(rule: Mapping[str, Any], architecture: str, capabilities: set[str], kernel: tuple[int, int]) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if architecture in (unwanted.get("arches") or ()) or capabilities.intersection(unwanted.get("caps") or ()):
        return False
    if unwanted.get("minKernel") and kernel >= _kernel(unwanted["minKernel"]):
        return False
    if wanted.get("minKernel") and kernel < _kernel(wanted["minKernel"]):
        return False
    if wanted.get("arches") and architecture not in wanted["arches"]:
        return False
    # All of them: the profile has one rule for each capability, or asks for several together.
    return capabilities.issuperset(wanted.get("caps") or ())


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    names = [*(rule.get("names") or ()), *([rule["name"]] if rule.get("name") else ())]
    made: dict[str, Any] = {"names": names, "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        made["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        made["args"] = rule["args"]
    return made


def _kernel(release: str) -> tuple[int, int]:
    """`6.1.0-13-amd64` and `4.8` as numbers; (0, 0) for what is none."""
    numbers = release.split("-")[0].split(".")[:2]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and all(n.isdigit() for n in numbers) else (0, 0)
