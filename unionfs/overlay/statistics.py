"""What the engine counts, and what follows from that and from the transport's counts.

Counted is what is slow anyway: what had to be asked of a layer. How often it had not, is the difference to the requests
that came, so answering from memory costs nothing for being counted.

    lookups             names resolved from the layers              lookup_hits     LOOKUPs of names already known
    negative_lookups    names found missing, by a merged listing
    listings            merged listings read from the layers        listing_hits    uses of one that was in memory
    attribute_misses    GETATTRs that had to ask a layer            attribute_hits  GETATTRs answered from memory
    copy_ups, copy_up_bytes                                         inodes, handles now in use
    fetched_bytes       asked of registries for layers that are fetched lazily

The `_hits` are there only where a transport counts its requests (`request_lookup` …, see vfs.Filesystem). What is also
counted outside of requests (a directory read for an unlink, say) makes them a little too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COUNTERS: Final = ("lookups", "negative_lookups", "listings", "attribute_misses", "copy_ups", "copy_up_bytes")


def with_hits(transport: Mapping[str, int], engine: Mapping[str, int]) -> dict[str, int]:
    """Both, and the hits."""
    counts = {**transport, **engine}
    if not transport:
        return counts

    def requests(*opcodes: str) -> int:
        return sum(transport.get(f"request_{opcode}", 0) for opcode in opcodes)

    resolved = engine["lookups"] + engine["negative_lookups"]
    hits = {
        "lookup_hits": requests("lookup") - resolved,
        "listing_hits": resolved + requests("readdir", "readdirplus") - engine["listings"],
        "attribute_hits": requests("getattr") - engine["attribute_misses"],
    }
    return {**counts, **{name: max(0, count) for name, count in hits.items()}}
