"""INIT, row by row: what is taken when all is offered, and that the mount is correct without any one of them."""

from __future__ import annotations

import struct

import pytest

from tests.unit import devfuse_bytes as wire
from tests.unit.devfuse_memory import MemoryFs
from unionfs.errors import ProtocolError
from unionfs.transport.devfuse import abi, negotiate, requests
from unionfs.transport.devfuse.abi import Init
from unionfs.transport.devfuse.negotiate import FEATURES, Agreed, Feature, Wishes, agree
from unionfs.transport.devfuse.session import Session

ALL = (1 << 43) - 1
#: What Linux 5.4 offers (fuse_send_init): 7.31, nothing above EXPLICIT_INVAL_DATA.
LINUX_5_4 = (1 << 26) - 1
ROOT = Wishes(passthrough=True, stable_cookies=True)
USER = Wishes(passthrough=False, stable_cookies=True)


def offer(flags: int = ALL, minor: int = 45, major: int = 7) -> requests.InitIn:
    return requests.InitIn(major, minor, 131072, flags)


def test_root_gets_passthrough_and_a_user_does_not() -> None:
    assert agree(offer(), ROOT).flags & Init.PASSTHROUGH
    assert not agree(offer(), USER).flags & Init.PASSTHROUGH


@pytest.mark.parametrize("wishes", [ROOT, USER], ids=["root", "user"])
def test_writes_are_never_kept_back(wishes: Wishes) -> None:
    assert not agree(offer(), wishes).flags & Init.WRITEBACK_CACHE


def test_nothing_is_taken_that_was_not_offered() -> None:
    for row in FEATURES:
        flags = ALL & ~row.flags
        for wishes in (ROOT, USER):
            assert not agree(offer(flags), wishes).flags & ~flags, row.name


@pytest.mark.parametrize("missing", FEATURES, ids=lambda row: row.name)
@pytest.mark.parametrize("wishes", [ROOT, USER], ids=["root", "user"])
def test_each_feature_can_be_missing(missing: Feature, wishes: Wishes) -> None:
    """Without a feature the rest is agreed on, and its absence is handled as the table says."""
    agreed = agree(offer(ALL & ~missing.flags), wishes)
    assert missing.name not in agreed.features
    depending = {row.name for row in FEATURES if row.flags & missing.flags}
    unaffected = {row.name for row in FEATURES if row.name not in depending and row.wanted(wishes)}
    assert unaffected <= agreed.features
    CONSEQUENCES.get(missing.name, _nothing)(agreed, wishes)


def _nothing(agreed: Agreed, wishes: Wishes) -> None:
    """The kernel does its part alone: the flag only tells it that it may leave something to us."""


def _no_passthrough(agreed: Agreed, wishes: Wishes) -> None:
    assert not agreed.flags & Init.PASSTHROUGH
    assert init_out(agreed)["max_stack_depth"] == 0


def _small_writes(agreed: Agreed, wishes: Wishes) -> None:
    assert agreed.max_write == 128 << 10
    assert init_out(agreed)["max_pages"] == 0


def _page_writes(agreed: Agreed, wishes: Wishes) -> None:
    assert agreed.max_write == 4096


def _no_second_flags(agreed: Agreed, wishes: Wishes) -> None:
    assert agreed.flags < 1 << 32
    _no_passthrough(agreed, wishes)


def _short_setxattr(agreed: Agreed, wishes: Wishes) -> None:
    session = Session(MemoryFs())
    session.handle(*sized(wire.init(flags=ALL & ~Init.SETXATTR_EXT)))
    # struct fuse_setxattr_in without setxattr_flags and padding
    session.handle(*sized(wire.request(wire.SETXATTR, 1, struct.pack("<II", 1, 0) + b"user.a\0v")))
    assert session.fs.calls == [("setxattr", 1, b"user.a", b"v", 0)]  # type: ignore[attr-defined]


def _opendir_is_answered(agreed: Agreed, wishes: Wishes) -> None:
    fs = MemoryFs()
    fs.stable_cookies = True  # type: ignore[attr-defined]
    session = Session(fs)
    session.handle(*sized(wire.init(flags=ALL & ~Init.NO_OPENDIR_SUPPORT)))
    reply = session.handle(*sized(wire.request(wire.OPENDIR, 1, bytes(8))))
    assert reply is not None and reply[4:8] == b"\0\0\0\0"
    assert fs.calls == [("opendir", 1)]


def _plain_readdir_works(agreed: Agreed, wishes: Wishes) -> None:
    assert not agreed.flags & Init.READDIRPLUS_AUTO
    session = Session(MemoryFs())
    session.handle(*sized(wire.init(flags=ALL & ~Init.DO_READDIRPLUS)))
    session.handle(*sized(wire.request(wire.OPENDIR, 1, bytes(8))))
    reply = session.handle(*sized(wire.read(wire.READDIR, 1, 101, 0, 4096)))
    assert reply is not None and b".." in bytes(reply)


def _o_trunc_is_harmless(agreed: Agreed, wishes: Wishes) -> None:
    # The kernel masks O_TRUNC out of OPEN itself (fuse_send_open) and sends SETATTR.
    session = Session(MemoryFs())
    session.handle(*sized(wire.init(flags=ALL & ~Init.ATOMIC_O_TRUNC)))
    assert session.handle_now(*sized(wire.setattr_(1, abi.FATTR_SIZE, size=0))) is not None


CONSEQUENCES = {
    "passthrough": lambda agreed, wishes: _no_passthrough(agreed, wishes) if wishes is ROOT else None,
    "init_ext": _no_second_flags,
    "max_pages": _small_writes,
    "big_writes": _page_writes,
    "setxattr_ext": _short_setxattr,
    "no_opendir": _opendir_is_answered,
    "readdirplus": _plain_readdir_works,
    "atomic_o_trunc": _o_trunc_is_harmless,
}


def sized(data: bytes) -> tuple[bytes, int]:
    return data, len(data)


def init_out(agreed: Agreed) -> dict[str, int]:
    names = (
        "major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages "
        "map_alignment flags2 max_stack_depth request_timeout"
    ).split()
    return dict(zip(names, abi.INIT_OUT.unpack(agreed.reply(5)[16:]), strict=True))


def test_init_reply_of_root_on_a_new_kernel() -> None:
    out = init_out(agree(offer(), ROOT))
    assert (out["major"], out["minor"]) == (7, 45)
    assert out["flags2"] == 1 << 5  # passthrough
    assert out["max_stack_depth"] == 1
    assert (out["max_write"], out["max_pages"]) == (1 << 20, 256)
    assert out["time_gran"] == 1
    assert out["request_timeout"] == 0


def test_linux_5_4() -> None:
    agreed = agree(offer(LINUX_5_4, 31), ROOT)
    assert agreed.minor == 31
    assert agreed.flags < 1 << 26
    assert {"posix_acl", "max_pages", "no_opendir", "readdirplus"} <= agreed.features


def test_a_kernel_that_offers_nothing() -> None:
    agreed = agree(offer(0, 23), ROOT)
    assert (agreed.flags, agreed.features, agreed.max_write) == (0, frozenset(), 4096)


def test_newer_minor_is_answered_with_ours() -> None:
    assert agree(offer(minor=99), ROOT).minor == 45


def test_newer_major_is_told_ours_and_may_ask_again() -> None:
    session = Session(MemoryFs())
    reply = session.handle(*sized(wire.init(major=8)))
    assert reply is not None
    assert struct.unpack_from("<II", reply, 16) == (7, 45)
    assert session.agreed is None
    assert session.handle(*sized(wire.init())) is not None
    assert session.agreed is not None


@pytest.mark.parametrize(("major", "minor"), [(7, 22), (6, 0)])
def test_too_old_a_kernel_is_refused(major: int, minor: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        agree(offer(minor=minor, major=major), ROOT)
    assert caught.value.hint == "at least 7.23 is needed"


def test_locks_stay_in_the_kernel() -> None:
    assert not agree(offer(), ROOT).flags & (Init.POSIX_LOCKS | Init.FLOCK_LOCKS)


def test_directory_listings_are_cached_only_where_cookies_are_stable() -> None:
    assert "no_opendir" not in agree(offer(), Wishes(stable_cookies=False)).features


@pytest.mark.parametrize(
    ("choice", "flags"),
    [("auto", Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO), ("always", Init.DO_READDIRPLUS), ("never", Init(0))],
)
def test_readdirplus_choice(choice: str, flags: Init) -> None:
    agreed = agree(offer(), Wishes(readdirplus=choice))
    assert agreed.flags & (Init.DO_READDIRPLUS | Init.READDIRPLUS_AUTO) == flags


def test_the_receive_buffer_holds_the_largest_write() -> None:
    from unionfs.transport.devfuse.loop import BUFFER_SIZE

    assert BUFFER_SIZE >= 40 + 40 + negotiate.MAX_WRITE
