# Sourced by scripts/test and scripts/demo: makes a fresh Debian machine ready. Idempotent, and quick when all is there.
#
#   system_packages NAME...   install what is missing, when that is possible; else say what stays missing and go on
#   virtual_environment EXTRA .venv with this tree installed editable, plus the extra ("" for none)
#
# Everything said goes to stderr. The working directory is the root of the tree.

say() { printf '%s\n' "$*" >&2; }

system_packages() {
    command -v dpkg-query >/dev/null || return 0  # not Debian: what is missing skips its tests with the reason
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    local as_root=()
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            say "not installed, and this user may not install: ${missing[*]}"
            return 0
        fi
        as_root=(sudo -n)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    say "installing ${missing[*]}"
    # The programs are wanted, not their services: this file says so to whoever would start one (invoke-rc.d(8)).
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy ]]; then policy=; else "${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy"; fi
    if ! "${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
        # The usual reason is that there are no package lists yet, or old ones.
        "${as_root[@]}" apt-get update -qq >&2 || true
        "${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2 ||
            say "some of these could not be installed: ${missing[*]}"
    fi
    [[ -z $policy ]] || "${as_root[@]}" rm "$policy"
}

# libfuse 2 has another package name since Debian 13.
libfuse2_package() {
    if apt-cache show libfuse2t64 >/dev/null 2>&1; then echo libfuse2t64; else echo libfuse2; fi
}

# The daemon and the command, which are two packages since Debian 13.
docker_packages() {
    echo docker.io
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; fi
}

# The first Python that is new enough and can make virtual environments: the distribution's before others, since it is
# built with profile-guided optimisation, which makes a mount a sixth faster.
suitable_python() {
    local python
    for python in ${PYTHON:-} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    say "error: no Python 3.11 or newer with venv"
    say "hint: apt-get install python3-venv"
    return 1
}

virtual_environment() {
    local extra=$1 stamp
    stamp="$PWD $extra $(sha256sum pyproject.toml)"
    if [[ -x .venv/bin/unionfs && $(cat .venv/stamp 2>/dev/null) == "$stamp" ]]; then return 0; fi
    # One environment serves both commands: the larger one satisfies the smaller.
    if [[ -z $extra && -x .venv/bin/unionfs && $(cat .venv/stamp 2>/dev/null) == "$PWD test $(sha256sum pyproject.toml)" ]]; then return 0; fi
    local python
    python=$(suitable_python)
    say "preparing .venv with $("$python" --version)"
    [[ -x .venv/bin/python && -f .venv/stamp && $(cat .venv/stamp) == "$PWD "* ]] || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check -e ".${extra:+[$extra]}" >&2
    printf '%s\n' "$stamp" >.venv/stamp
}
