"""The image store, an OCI image layout that other tools read in place, and the image formats it takes in and gives out.

    digest.py          the name of bytes; a verifier for bytes on their way; ChainIDs
    mediatypes.py      OCI's and docker's media types
    models.py          the JSON documents (descriptor, index, manifest, config, docker's manifest.json), one door
    platforms.py       os/arch/variant: read, and chosen by
    reference.py       names of images
    place.py           where the store is, and its names, for who cannot wait for the models
    image.py           `Image`, a view; `walk`, which finds the images below a descriptor, wherever its bytes are

    blobs.py           content-addressed files, and how new ones come in
    layout.py          a directory that is an OCI layout: index.json, locks
    catalog.py         what index.json says at one moment: images by name, ID, digest
    layer_cache.py     layers unpacked once and indexed, to be read in place; stands alone, without third parties
    merged.py          the index of what a stack of such layers shows together

    members.py         the one door for archives and layout directories of unknown origin
    oci_layout.py      OCI layouts     } read as Incoming (incoming.py)
    docker_archive.py  docker archives }
    load.py            what is incoming, verified and taken in
    layers.py          a layer on its way in
    staging.py         new images, published together
    save.py            archives and layouts written
    root_fs.py         an image's layers merged: export

    store.py           `Store`: all operations, each with its locks
    listing.py         ls, inspect, history                 removal.py  rm, untag
    filters.py         --filter, with the patterns.py of names and the moments.py that it says
    gc.py, prune.py    what is referred to, and what goes   validate.py  everything recomputed
    results.py         what the operations return
    mutate.py, shell_words.py, commit.py   configurations changed and made
    registry/          images from registries, and to them

README.md beside this file has the decisions.

INVARIANT: a digest is of the bytes that are held; a document that was parsed is never written again.
"""
