"""Layer tars that must be refused, and must not write outside the directory. Made, not stored: one line says each.

`CORPUS` maps what is wrong to the archive's bytes. Every one raises TarError (and no other error) when it is applied.
"""

from __future__ import annotations

import bz2
import gzip
import lzma

from unionfs.changeset.tar_format import BLK, CHR, DIR, FIFO, LINK, REG, SYMLINK, TRAILER, Fields, member, padding


def entry(name: bytes, type: bytes = REG, data: bytes = b"", linkname: bytes = b"", **fields: int) -> bytes:
    """A member with its data."""
    header = member(Fields(name, type, fields.pop("mode", 0o644), size=len(data), linkname=linkname, **fields))
    return header + data + bytes(padding(len(data)))


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + TRAILER


def patched(header: bytes, at: int, value: bytes) -> bytes:
    """A header with some bytes replaced, and a checksum that agrees."""
    block = bytearray(header)
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def signed(header: bytes) -> bytes:
    """The header with its checksum made of signed bytes."""
    block = bytearray(header)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in block[:512])
    return bytes(block)


def pax(*records: tuple[bytes, bytes], type: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        length = len(key) + len(value) + 3
        while length != len(key) + len(value) + 3 + len(b"%d" % length):
            length = len(key) + len(value) + 3 + len(b"%d" % length)
        body += b"%d %b=%b\n" % (length, key, value)
    return raw_pax(body, type)


def raw_pax(body: bytes, type: bytes = b"x") -> bytes:
    return patched(entry(b"pax", REG, body)[:512], 156, type) + body + bytes(padding(len(body)))


_GOOD = archive(entry(b"a", data=b"x" * 2000), entry(b"b"))
_FILE = entry(b"f")

#: Sound as tars; what they name is refused by apply.
UNSAFE: dict[str, bytes] = {
    # names
    "parent directory": archive(entry(b"../canary")),
    "parent directory inside": archive(entry(b"a/../../canary")),
    "parent directory at the end": archive(entry(b"a/..", DIR)),
    "absolute and parent": archive(entry(b"/../canary")),
    "extended path with parent": archive(pax((b"path", b"../canary")) + _FILE),
    "long path with parent": archive(patched(entry(b"@", data=b"../canary\0"), 156, b"L")[:1024] + _FILE),
    "component of 256 bytes": archive(entry(b"x" * 256)),
    "empty name": archive(patched(_FILE, 0, bytes(100))),
    "root that is a file": archive(entry(b"./.")),
    "below a file": archive(_FILE, entry(b"f/g")),
    "symlinks in a circle": archive(
        entry(b"a", SYMLINK, linkname=b"b"), entry(b"b", SYMLINK, linkname=b"a"), entry(b"a/c")
    ),
    # whiteouts
    "whiteout of nothing": archive(entry(b".wh.")),
    "whiteout of the directory itself": archive(entry(b"d/.wh..")),
    "whiteout of the parent": archive(entry(b".wh...")),
    "below a whiteout": archive(entry(b".wh.d/f")),
    # links
    "hard link out of the tree": archive(entry(b"l", LINK, linkname=b"../canary")),
    "hard link to nothing": archive(entry(b"l", LINK, linkname=b"missing")),
    "hard link to a directory": archive(entry(b"d", DIR), entry(b"l", LINK, linkname=b"d")),
    "hard link to the root": archive(entry(b"l", LINK, linkname=b"/")),
    "hard link to what it replaces": archive(entry(b"d", DIR), entry(b"d/f"), entry(b"d", LINK, linkname=b"d/f")),
    "symbolic link without target": archive(entry(b"l", SYMLINK)),
    # numbers and attributes
    "no such device": archive(pax((b"x", b"y")) + patched(entry(b"d", CHR), 329, b"7777777\0")),
    "owner beyond uid_t": archive(pax((b"uid", b"4294967295")) + _FILE),
    "malformed ACL": archive(pax((b"SCHILY.xattr.system.posix_acl_access", b"\2\0\0\0rubbish")) + _FILE),
}

#: Refused by the reader already.
MALFORMED: dict[str, bytes] = {
    "NUL in an extended path": archive(pax((b"path", b"a\0b")) + _FILE),
    "negative size": archive(patched(_FILE, 124, b"\xff" * 12)),
    "size that is no number": archive(patched(_FILE, 124, b"12x4\0")),
    "size in an extended header that is no number": archive(pax((b"size", b"-1")) + _FILE),
    "mtime that is no number": archive(pax((b"mtime", b"tomorrow")) + _FILE),
    "mtime without end": archive(pax((b"mtime", b"9" * 5000)) + _FILE),
    "mtime that is NaN": archive(pax((b"mtime", b"NaN")) + _FILE),
    # format
    "empty": b"",
    "text": b"hello, world\n" * 100,
    "no end marker": _GOOD[:-1024],
    "cut in a header": _GOOD[:300],
    "cut in the data": _GOOD[:1200],
    "cut in the padding": _GOOD[:2700],
    "zero block amid": entry(b"a") + bytes(512) + entry(b"b") + TRAILER,
    "wrong checksum": archive(entry(b"a"), b"b" + _FILE[1:]),
    "unknown type": archive(patched(_FILE, 156, b"Z")),
    "continued from another volume": archive(patched(_FILE, 156, b"M")),
    "extended header and nothing": pax((b"path", b"a")),
    "extended header before the end marker": archive(pax((b"path", b"a"))),
    "extended header too large": archive(patched(patched(_FILE, 156, b"x"), 124, b"00777777777\0")),
    "record without length": archive(raw_pax(b"path=a\n") + _FILE),
    "record with a wrong length": archive(raw_pax(b"99 path=a\n") + _FILE),
    "record of length zero": archive(raw_pax(b"0 path=a\n") + _FILE),
    "record without equals sign": archive(raw_pax(b"8 abcde\n") + _FILE),
    "record without newline": archive(raw_pax(b"9 path=ab") + _FILE),
    "xattr without name": archive(pax((b"SCHILY.xattr.", b"1")) + _FILE),
    "xattr of no namespace": archive(pax((b"SCHILY.xattr.user.\0x", b"1")) + _FILE),
    "xattr that is not base64": archive(pax((b"LIBARCHIVE.xattr.user.a", b"!")) + _FILE),
    # sparse files
    "sparse map beyond the file": archive(
        pax((b"GNU.sparse.map", b"0,512"), (b"GNU.sparse.size", b"10")) + entry(b"f", data=bytes(512))
    ),
    "sparse map that overlaps": archive(
        pax((b"GNU.sparse.map", b"0,400,200,112"), (b"GNU.sparse.size", b"9000")) + entry(b"f", data=bytes(512))
    ),
    "sparse map larger than the data": archive(
        pax((b"GNU.sparse.map", b"0,4096"), (b"GNU.sparse.size", b"9000")) + entry(b"f", data=bytes(512))
    ),
    "sparse map of odd length": archive(
        pax((b"GNU.sparse.map", b"0,512,1"), (b"GNU.sparse.size", b"9000")) + entry(b"f", data=bytes(512))
    ),
    "sparse map without size": archive(pax((b"GNU.sparse.map", b"0,512")) + entry(b"f", data=bytes(512))),
    "sparse map in the data that is cut off": archive(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"10"))
        + entry(b"f", data=b"9999\n".ljust(512, b"\0"))
    ),
    "sparse map in the data that is rubbish": archive(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"10"))
        + entry(b"f", data=b"x" * 512)
    ),
    # compression
    "gzip cut short": gzip.compress(_GOOD, mtime=0)[:-12],
    "gzip without its checksum": gzip.compress(_GOOD, mtime=0)[:-4],
    "gzip with a wrong checksum": gzip.compress(_GOOD, mtime=0)[:-8] + bytes(8),
    "gzip followed by rubbish": gzip.compress(_GOOD, mtime=0) + b"rubbish",
    "gzip header only": b"\x1f\x8b\x08",
    "gzip that says method 9": b"\x1f\x8b\x09" + bytes(20),
    "bzip2 cut short": bz2.compress(_GOOD)[:-5],
    "bzip2 corrupt": b"BZh9" + bytes(30),
    "xz cut short": lzma.compress(_GOOD)[:-5],
    "xz corrupt": lzma.compress(_GOOD)[:6] + bytes(60),
    "zstd cut short": b"\x28\xb5\x2f\xfd\x24",
    "zstd corrupt": b"\x28\xb5\x2f\xfd" + b"\xff" * 40,
    "compressed text": gzip.compress(b"hello", mtime=0),
}

CORPUS = UNSAFE | MALFORMED

#: Archives that are odd and yet fine.
ODD_BUT_GOOD: dict[str, bytes] = {
    "one zero block at the end": entry(b"a") + bytes(512),
    "more padding": archive(entry(b"a")) + bytes(10240),
    "rubbish after the end": archive(entry(b"a")) + b"rubbish",
    "V7 header": patched(patched(entry(b"a"), 257, bytes(255)), 156, b"\0") + TRAILER,
    "V7 directory": patched(entry(b"a/"), 156, b"\0") + TRAILER,
    "contiguous file": patched(entry(b"a"), 156, b"7") + TRAILER,
    "signed checksum": signed(patched(entry(b"a"), 500, b"\xff\xfe")) + TRAILER,
    "fields of spaces": patched(entry(b"a"), 108, b"      0 ") + TRAILER,
    "fifo with a size": patched(entry(b"a", FIFO), 124, b"00000001000\0") + TRAILER,
    "block device 8:0 as a member": archive(entry(b"a", BLK, rdev=0x800)),
    "global header": archive(pax((b"comment", b"x"), type=b"g"), entry(b"a")),
    "volume label": archive(patched(entry(b"label"), 156, b"V"), entry(b"a")),
    "leading ./ and /": archive(entry(b"./x/", DIR), entry(b"/a")),
}
