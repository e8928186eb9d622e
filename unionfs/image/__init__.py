"""The image store, an OCI image layout that other tools read in place, and the image formats it takes in and gives out.

    digest.py          the name of bytes; a verifier for bytes on their way; ChainIDs
    mediatypes.py      OCI's and docker's media types
    models.py          the JSON documents (descriptor, index, manifest, config, docker's manifest.json), one door
    reference.py       names of images
    blobs.py           content-addressed files: verified on the way in, staged, published together
    store.py           `Store`: all operations
    image.py           `Image`: one image of one platform, as a view
    layer_cache.py     layers unpacked once and indexed, to be read in place; stands alone, without third parties
    mutate.py          a configuration after `commit -c`; shell_words.py: its quotes and variables
    commit.py          the configuration of the image of one more layer
    members.py         the one door for archives and layout directories of unknown origin
    oci_layout.py      OCI layouts, read and written
    docker_archive.py  docker's archives of all generations, read and written
    validate.py        everything recomputed
    gc.py              what is referred to, and what goes

INVARIANT: a digest is of the bytes that are held; a document that was parsed is never written again.
"""
