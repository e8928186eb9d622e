"""Layers that are fetched in parts, when they are read: eStargz and zstd:chunked.

    contents.py    the table of contents (TOC) of such a layer, of either format, as members and chunks
    chunk_file.py  what has come of a layer's data: one sparse file, shared by all mounts of it
    fetcher.py     brings chunks, each compared with its digest before anybody sees it
    lazy_cache.py  both in the cache, with the index that is made of a TOC
    notes.py       the store's notes of where a layer that was not fetched comes from
    opening.py     a noted layer, opened

INVARIANT: a TOC is looked at after it was compared with the digest that the manifest has of it; a chunk is written to
the chunk file, and seen by a reader, after it was compared with the digest that the TOC has of it. A layer for which
one of these is missing is no such layer, and is fetched whole.

Nothing here speaks to a registry by itself: registry.parts does, and is imported when the first byte is asked for.
"""
