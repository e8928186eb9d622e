"""From any `-o` text to the arguments of mount(2) and fusermount3: nothing gets there that has no business there."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unionfs.api.mounting import MountRequest, mount_options_of, owners_of, union_options_of
from unionfs.errors import OptionError
from unionfs.linux.mount import MS_NOSUID
from unionfs.mounts.helper import LABELS, OverlayOptions, from_options, parse_mount_options
from unionfs.transport import MountOptions
from unionfs.transport.devfuse.channel import mount_arguments, user_options

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"

#: Everything that mount(2) may be told of a FUSE file system by us (fs/fuse/inode.c, fuse_fs_parameters).
KNOWN = {"fd", "rootmode", "user_id", "group_id", "allow_other", "default_permissions", *LABELS}
FLAGS = set(
    "ro suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime norelatime strictatime sync async "
    "dirsync".split()
)

HOSTILE = (
    'context="x",fd=0', r"context=x\",fd=0", r'context="x\",allow_other"', r'context=x\"\,user_id=0', "context=\\\0",
    r"fsname=a\,fd=0", r"fsname=a\\\,allow_other", "fsname=\n", 'fsname="a,allow_other"', "fsname=" + "x" * 5000,
    r"subtype=x\,fd=0", "subtype=../../x", "subtype=\0", "subtype=" + "y" * 300,
    "fd=0", "rootmode=100000", "user_id=0", "group_id=0", "blksize=1", "max_read=1", "allow_other=1", "nosuid=,fd=0",
    "uidmapping=0:0:99999999999999999999", "squash_to_uid=-1", "squash_to_uid=4294967295", "squash_to_gid=²",
    "xattr_permissions=3", "xattr_permissions=", "index=maybe", "index", "transport=evil", "log_file=/dev/\0",
    "volatile=\0", "fsync=\0", "timeout=\0", '"', "\\", ",,,", "=", "==", "=x", ",=,", "\udcff", "a" * 70000,
    "lowerdir=" + ":" * 1000 + "a", "lowerdir+=", "upperdir", "workdir=", "lowerdir=/a,lowerdir=", "datadir+=/x",
)  # fmt: skip

_PIECES = (
    *"context= fscontext= fsname= subtype= fd=0 allow_other nosuid dev user_id=0 x system_u:r".split(),
    *'" \\ , = : \0 \n'.split(" "), "\udcff",
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(HOSTILE), st.lists(st.sampled_from(_PIECES), max_size=10).map("".join), st.text(max_size=30)
)


def _split(data: str) -> list[str]:
    """At commas outside of quotes, as selinux_sb_eat_lsm_opts() does for labels and the kernel for all else."""
    words, quoted = [""], False
    for character in data:
        quoted ^= character == '"'
        if character == "," and not quoted:
            words.append("")
        else:
            words[-1] += character
    assert not quoted, data
    return words


def check_arguments(options: MountOptions) -> None:
    _, data = mount_arguments(options, 7)
    assert b"\0" not in data
    words = _split(os.fsdecode(data))
    keys = [word.partition("=")[0] for word in words]
    assert set(keys) <= KNOWN, words
    assert len(set(keys)) == len(keys), words
    assert words[:4] == ["fd=7", "rootmode=40000", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    assert "\0" not in options.fsname + options.subtype
    text = user_options(options)
    first, _, rest = text.replace("\\\\", "").replace("\\,", "").partition(",subtype=")
    assert "," not in first  # fsname, whatever it is
    for word in _split(rest)[1:]:
        assert word.partition("=")[0] in {"allow_other", "default_permissions", *FLAGS, *LABELS}, word


def given_options(text: str) -> OverlayOptions | None:
    try:
        parsed = from_options(parse_mount_options(text))
        union_options_of(parsed.options)
        owners_of(parsed.options)
    except OptionError as e:
        assert str(e) and "\0" not in str(e)
        return None
    return parsed


@given(texts)
def test_any_text_is_refused_or_gives_mount_the_options_it_may_have(text: str) -> None:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return
    parsed = given_options(text)
    if parsed is not None:
        asked = MountRequest(b"/m", (b"/a",), options=parsed.options)
        try:
            options = mount_options_of(asked, writable=True)
        except OptionError:
            return
        check_arguments(options)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:30]))
def test_hostile_text_is_refused_or_harmless(text: str) -> None:
    parsed = given_options(text)
    if parsed is None:
        return
    assert {"fd", "rootmode", "user_id", "group_id", "blksize"}.isdisjoint(parsed.options)
    try:
        check_arguments(mount_options_of(MountRequest(b"/m", (b"/a",), options=parsed.options), writable=True))
    except OptionError as e:
        assert e.hint


def test_label_arrives_at_mount_in_quotes_and_whole() -> None:
    """Commas are part of a label's categories. The kernel's SELinux takes the quotes away."""
    parsed = given_options(f'lowerdir=/a,context="{LABEL}",nosuid')
    assert parsed is not None
    options = mount_options_of(MountRequest(b"/m", parsed.lowers, options=parsed.options), writable=True)
    flags, data = mount_arguments(options, 7)
    assert flags == MS_NOSUID
    assert (
        _split(data.decode())[4:] == ["allow_other", "default_permissions", f'context="{LABEL}"'][os.geteuid() != 0 :]
    )
    assert user_options(options).endswith(f',nosuid,context="{LABEL}"')


@pytest.mark.parametrize("key", sorted(LABELS))
@pytest.mark.parametrize("value", [r"a\"b", r"a\\b", "", r"a\"\,fd=0"])
def test_label_that_could_end_its_quotes_is_refused(key: str, value: str) -> None:
    with pytest.raises(OptionError, match=key) as caught:
        from_options(parse_mount_options(f"{key}={value}"))
    assert caught.value.hint
