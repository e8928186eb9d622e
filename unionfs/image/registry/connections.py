"""`Connections`: HTTP clients for a registry and for where it leads (token servers, stores of blobs), one for a host.

    host            certificates that are trusted                      a client's own
    the registry    of the system, and of --cert-dir or its certs.d    of --cert-dir or its certs.d
    another         the same, and of its own certs.d                   of its own certs.d

With --insecure any certificate is taken, from all of them: who may stand in for the registry may name any other host.
Proxies are those of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY), never for localhost. What is asked,
and whether it should be, is not for this module.
"""

from __future__ import annotations

import ipaddress
import threading
import urllib.request
from collections.abc import Mapping
from typing import Final

import httpcore2
import httpx2

from unionfs import __version__
from unionfs.errors import RegistryError
from unionfs.image.registry import tls

_WIDTH: Final = 8
#: Sent with every request: a blob's bytes are to come as they are.
_HEADERS: Final = {"User-Agent": f"unionfs/{__version__}", "Accept-Encoding": "identity"}
#: Bytes to be taken from a socket at a time, by scheme. With httpcore2's 64 KiB several blobs at once spend a fifth of
#: their time on handing the interpreter lock round. By TLS no more than a record (16 KiB) comes, whatever there is room
#: for, and from 128 KiB on malloc(3) would ask the kernel for that room each time.
_READ_SIZES: Final = {"http": 1 << 20, "https": 1 << 16}


def is_local(host: str) -> bool:
    """Is that this machine, by its name (port and brackets taken off)?"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(url: httpx2.URL) -> bool:
    """Can somebody be there? Else the resolver would raise what it likes, or take the port modulo 65536."""
    try:
        url.host.encode("idna")
    except UnicodeError:
        return False
    return bool(url.host) and 0 < (url.port or 443) < 1 << 16


def netloc(url: httpx2.URL) -> str:
    """Host and port as people write them."""
    return url.netloc.decode("ascii")


class Connections:
    """Safe to use from several threads. `host`: the registry's, with its port, as it is written; `base`: its address.
    `patience`: seconds without a byte. `transport`: in place of the network."""

    def __init__(
        self,
        host: str,
        base: httpx2.URL,
        environ: Mapping[str, str],
        *,
        insecure: bool = False,
        cert_dir: str | None = None,
        patience: float = 60,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._host, self._own, self._environ = host, netloc(base), environ
        self._insecure, self._cert_dir = insecure, cert_dir
        self._patience, self._transport = patience, transport
        self._clients: dict[str, httpx2.Client] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Idempotent. Ends what is under way."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def to(self, url: httpx2.URL) -> httpx2.Client:
        """RegistryError where certificates or proxies cannot be used."""
        key = f"{url.scheme}://{netloc(url)}"
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._new(url)
            return self._clients[key]

    def proxied(self, url: httpx2.URL) -> bool:
        """Is there a proxy for such addresses? (NO_PROXY is not looked at.)"""
        return not is_local(url.host) and not urllib.request.getproxies().keys().isdisjoint((url.scheme, "all"))

    def _new(self, url: httpx2.URL) -> httpx2.Client:
        httpcore2.HTTP11Connection.READ_NUM_BYTES = _READ_SIZES[url.scheme]  # of all connections, but of one kind
        if url.scheme == "http" or self._transport is not None:
            verify = tls.context(verified=False)
        else:
            given = [self._cert_dir] if self._cert_dir is not None else tls.directories(self._host, self._environ)
            own = netloc(url) == self._own
            verify = tls.context(
                given if own else tls.directories(netloc(url), self._environ),
                authorities=() if own else given,
                required=own and self._cert_dir is not None,
                verified=not self._insecure,
            )
        try:
            return httpx2.Client(
                verify=verify,
                headers=_HEADERS,
                timeout=self._patience,
                limits=httpx2.Limits(max_connections=_WIDTH, max_keepalive_connections=_WIDTH),
                trust_env=not is_local(url.host),
                transport=self._transport,
                follow_redirects=False,
            )
        except (ValueError, httpx2.InvalidURL, ImportError) as error:
            why = "SOCKS needs the Python package socksio" if isinstance(error, ImportError) else str(error)
            raise RegistryError(
                f"the proxy of the environment cannot be used: {why}",
                hint="look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY",
            ) from error
