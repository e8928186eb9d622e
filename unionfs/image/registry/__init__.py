"""Registries: images fetched and given by the OCI distribution protocol (distribution-spec 1.1).

    challenge.py     what a WWW-Authenticate header asks for
    credentials.py   who one is at a registry: docker's and podman's auth files; helpers.py: programs that keep secrets
    authorizer.py    the Authorization of a request: basic, or a token that is fetched
    tls.py           certificates for a registry, by the directories that docker and podman have for them
    connections.py   HTTP clients by host, with their certificates and proxies
    retry.py         what is tried again, and when
    failures.py      what a refusal says, as an error and a hint
    client.py        requests: authorised, redirected, tried again
    repository.py    manifests and blobs of one repository; download.py, upload.py: bytes, resumed where they were cut
    transfer.py      several blobs at once
    pull.py push.py  images, between a store and a repository
    login.py         credentials tried and kept
    search.py        what there is

Only this package speaks to a network; nobody imports it but what does, since its client (httpx2) takes its time.

INVARIANT: an Authorization header goes to the origin (scheme, host, port) that asked for it, or to the token server
that this one names, and to no other; only from HTTP to HTTPS a token server may take it along, on its host.
INVARIANT: what a server says reaches a store after it was compared with digest and size, and a terminal after its
control characters were taken out.
"""
