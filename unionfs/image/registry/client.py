"""Requests to one registry: authorised, redirected, and tried again where that may help.

    registry          requests go to
    docker.io         https://registry-1.docker.io
    HOST[:PORT]       https://HOST[:PORT]
    localhost         http://, or https:// where that is spoken
    with --insecure   the same, or HTTP where nothing speaks TLS

Redirects are followed here, not by httpx2: the Authorization stays behind where the origin changes, and nothing leads
from HTTPS to HTTP. Certificates and proxies are `Connections`'.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httpx2

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.reference import DEFAULT_DOMAIN
from unionfs.image.registry import challenge, failures
from unionfs.image.registry.authorizer import Authorizer
from unionfs.image.registry.connections import Connections, is_address, is_local, netloc
from unionfs.image.registry.credentials import AuthFiles, Credentials
from unionfs.image.registry.failures import Doing
from unionfs.image.registry.retry import STATUSES, Retry, seconds

_HUB_HOST: Final = "registry-1.docker.io"
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_MAX_REDIRECTS: Final = 5
#: Those that ask for the same again, elsewhere (RFC 9110, 15.4.8 and 15.4.9).
_SAME_AGAIN: Final = frozenset((307, 308))
#: Seconds without a byte.
_PATIENCE: Final = 60.0
_MEETING: Final = Doing("")
#: What who is known might not have been answered.
_FOR_SOME: Final = (401, 403, 404, 429)
#: Nobody is there, or nobody who answers.
_NOBODY: Final = (httpx2.ConnectError, httpx2.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How registries are reached. `patience`: seconds without a byte. `transport`: in place of the network."""

    insecure: bool = False
    cert_dir: str | None = None
    authfile: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    uid: int = field(default_factory=os.geteuid)
    retry: Retry = field(default_factory=Retry)
    patience: float = _PATIENCE
    transport: httpx2.BaseTransport | None = None

    def auth_files(self) -> AuthFiles:
        return AuthFiles(self.environ, self.uid, self.authfile)

    def checked(self) -> RegistryOptions:
        """Itself. RegistryError where a file that was named is not there: who names one is not to go on as nobody."""
        if self.authfile is not None and not os.path.exists(self.authfile):
            raise RegistryError(f"{self.authfile} does not exist", hint="unionfs login --authfile writes it")
        return self


class Answer(NamedTuple):
    """A whole answer; `url`: who gave it."""

    status: int
    headers: httpx2.Headers
    body: bytes
    url: httpx2.URL


class Client:
    """A context manager; safe to use from several threads. `registry`: host and port as in a name of an image.

    `path`: the repository for which credentials are looked up; `credentials`: these, in place of the auth files'.
    """

    def __init__(
        self, registry: str, options: RegistryOptions, path: str = "", credentials: Credentials | None = None
    ) -> None:
        self.registry, self.options = registry, options
        self.host = _HUB_HOST if registry == DEFAULT_DOMAIN else registry
        self._base = self._address(f"https://{self.host}", f"{registry} is no address of a registry")
        self._local = is_local(self._base.host)
        self._connections = Connections(
            self.host,
            self._base,
            options.environ,
            insecure=options.insecure,
            cert_dir=options.cert_dir,
            patience=options.patience,
            transport=options.transport,
        )
        self._meeting = threading.Lock()
        self._met = False
        #: Set, it ends what is under way: in other threads, with `Cancelled`.
        self.cancelled = threading.Event()

        #: Why there are no credentials: to be told where some are wanted, since much can be had without.
        self._problem: RegistryError | None = None

        def find() -> Credentials | None:
            try:
                return credentials or options.auth_files().find(registry, path)
            except RegistryError as error:
                self._problem = error
                return None

        self.authorizer = Authorizer(find, self._fetch_token)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent. Ends what is under way."""
        self._connections.close()

    # meeting --------------------------------------------------------------------------------------------------------
    def meet(self) -> None:
        """Find out how the registry is spoken to, and what it asks for (distribution-spec, end-1). The first request
        does it; whatever the answer, it is one."""
        with self._meeting:
            if self._met:
                return
            failed = 0
            while True:
                errors = []
                for scheme in self._schemes():
                    error = self._greet(scheme)
                    if error is None:
                        self._met = True
                        return
                    errors.append(error)
                # Of two, the one that says more: that TLS makes no sense of HTTP is known.
                trust = [one for one in errors if _is_of_trust(one)]
                error = next((one for one in (*trust, *reversed(errors)) if not _is_no_tls(one)), errors[0])
                failed += 1
                # Nobody is there; later, whoever was there is looked for again.
                if trust or isinstance(error, _NOBODY) or not self._again(failed):
                    raise self.unreachable(_MEETING, error) from error

    def _schemes(self) -> tuple[str, ...]:
        if self._local and self.options.cert_dir is None:
            return "http", "https"  # certificates take longer to read than a local registry to answer
        return ("https", "http") if self.options.insecure else ("https",)

    def _greet(self, scheme: str) -> httpx2.TransportError | None:
        """What stands against speaking so; None: it is what is spoken from now on."""
        self._base = self._base.copy_with(scheme=scheme)
        try:
            response = self._once("GET", self.url("/v2/"), {}, None, None)
        except httpx2.TransportError as error:
            return error
        with closing(response):
            if scheme == "http" and response.status_code == 400:
                return httpx2.RemoteProtocolError("it does not speak HTTP")  # but TLS, as Go's servers say so
            if response.status_code == 401 and self._own(response.url):
                self.authorizer.note(_challenges(response))
        return None

    def _again(self, failed: int, response: httpx2.Response | None = None) -> bool:
        """Wait after a failure; whether to try again."""
        retry_after = None if response is None else response.headers.get("retry-after")
        return self.options.retry.wait(failed, retry_after, self.cancelled)

    def url(self, path: str) -> httpx2.URL:
        """Of something at the registry; an address (a Location) stands for itself, if it may."""
        return self.led(self._base, path)

    def led(self, here: httpx2.URL, location: str) -> httpx2.URL:
        """Where a place leads to. RegistryError for what is no HTTP, or was HTTPS and is none any more."""
        url = self._address(location, f"{self.registry} leads to {failures.plain(location)}, which is nowhere", here)
        if url.scheme not in ("http", "https") or (url.scheme == "http" and here.scheme == "https"):
            raise RegistryError(
                f"{self.registry} leads to {failures.plain(str(url))}, which is not safe",
                hint="a proxy before it has to send X-Forwarded-Proto" if url.host == here.host else None,
            )
        return url

    def _address(self, text: str, none: str, here: httpx2.URL | None = None) -> httpx2.URL:
        """RegistryError, which says `none`, for an address that nobody can be at."""
        try:
            url = httpx2.URL(text) if here is None else here.join(text)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme in ("http", "https", "") and not is_address(url):
            raise RegistryError(none, hint="write HOST or HOST:PORT" if here is None else None)
        return url

    # requests -------------------------------------------------------------------------------------------------------
    def request(
        self,
        what: Doing,
        method: str,
        path: str,
        *,
        scopes: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        expect: Iterable[int] = (200,),
        limit: int = failures.LIMIT,
    ) -> Answer:
        """The answer, whole. RegistryError, about `what`, where its status is none of `expect`; more than
        `limit` bytes are an ImageFormatError."""
        with self.stream(what, method, path, scopes=scopes, headers=headers, body=body, expect=expect) as response:
            return Answer(response.status_code, response.headers, self.read(what, response, limit), response.url)

    @contextmanager
    def stream(
        self,
        what: Doing,
        method: str,
        path: str,
        *,
        scopes: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        expect: Iterable[int] = (200,),
    ) -> Iterator[httpx2.Response]:
        """The answer, its body still to come. A body that is an iterable is sent once, and errors of the transport are
        then the caller's."""
        self.meet()
        response = self._send(what, method, self.url(path), tuple(scopes), dict(headers or {}), body)
        with closing(response):
            if response.status_code not in tuple(expect):
                raise self.refusal(what, response)
            yield response

    def _send(
        self,
        what: Doing,
        method: str,
        url: httpx2.URL,
        scopes: tuple[str, ...],
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> httpx2.Response:
        once = body is not None and not isinstance(body, bytes)
        failed, authorised = 0, 0
        while True:
            # Tokens are fetched here: what that fails with is said as it is.
            authorization = self.authorizer.header(scopes) if self._own(url) else None
            try:
                response = self._once(method, url, headers, body, authorization)
            except httpx2.TransportError as error:
                failed += 1
                if once:
                    raise
                if not self._again(failed):
                    raise self.unreachable(what, error) from error
                continue
            if response.status_code == 401 and self._own(response.url) and authorised < 2 and not once:
                authorised += 1
                if self.authorizer.challenged(_challenges(response), authorization, scopes):
                    response.close()
                    continue
            if response.status_code in STATUSES and not once:
                failed += 1
                if self._again(failed, response):
                    response.close()
                    continue
            return response

    def _once(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        authorization: str | None,
    ) -> httpx2.Response:
        """One request and where it leads to."""
        for _ in range(_MAX_REDIRECTS):
            own = self._own(url)
            sent = {**headers, **({"Authorization": authorization} if authorization and own else {})}
            client = self._connections.to(url)
            response = client.send(client.build_request(method, url, headers=sent, content=body), stream=True)
            location = response.headers.get("location")
            followed = _REDIRECTS if method in ("GET", "HEAD") else _SAME_AGAIN if isinstance(body, bytes) else ()
            if response.status_code not in followed or not location:
                return response
            response.close()
            url = self.led(url, location)
        raise RegistryError(f"{self.registry} redirects without end")

    def _own(self, url: httpx2.URL) -> bool:
        """Is that the registry itself, which may see who we are?"""
        return _origin(url) == _origin(self._base)

    # answers --------------------------------------------------------------------------------------------------------
    def read(self, what: Doing, response: httpx2.Response, limit: int) -> bytes:
        data = bytearray()
        try:
            for piece in response.iter_raw():
                data += piece
                if len(data) > limit:
                    raise ImageFormatError(f"{what.thing}: more than {limit} bytes are refused")
        except httpx2.TransportError as error:
            raise self.unreachable(what, error) from error
        return bytes(data)

    def unreachable(self, what: Doing, error: httpx2.TransportError) -> RegistryError:
        """A request that came to no answer, of the registry or of whom it has led to."""
        url = _asked(error) or self._base
        return failures.unreachable(what, self._name(url), error, proxied=self._connections.proxied(url))

    def _name(self, url: httpx2.URL) -> str:
        """The registry's, as it is in images, or of another host."""
        return self.registry if netloc(url) == netloc(self._base) else netloc(url)

    def refusal(self, what: Doing, response: httpx2.Response, *, elsewhere: bool = True) -> RegistryError:
        """Of an answer, its body still to come, that is none to a request. `elsewhere`: another host than the registry
        has nothing to say of who may."""
        try:
            body = self.read(what, response, failures.LIMIT)
        except (RegistryError, ImageFormatError):
            body = b""
        if elsewhere and self._name(response.url) != self.registry:
            return failures.odd(what, self._name(response.url), response.status_code, response.reason_phrase, body)
        refusal = failures.refused(
            what,
            self.registry,
            response.status_code,
            response.reason_phrase,
            body,
            known=self.authorizer.known,
            wait=seconds(response.headers.get("retry-after", ""), self.options.retry.clock()),
        )
        if self._problem is not None and response.status_code in _FOR_SOME:
            hints = (str(self._problem), self._problem.hint)
            refusal.hint = "no credentials were sent: " + "; ".join(hint for hint in hints if hint)
        return refusal

    def _fetch_token(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """See authorizer.Fetch. What is sent there is a password: only by HTTPS, unless all of this is HTTP, or nobody
        minds."""
        shown = failures.plain(url.partition("?")[0])
        target = self._address(url, f"{self.registry} wants tokens from {shown}, which is nowhere", self._base)
        strict = self._base.scheme == "https" and not self.options.insecure
        if target.scheme not in (("https",) if strict else ("https", "http")):
            raise RegistryError(f"{self.registry} wants tokens from {shown}, which is not safe")
        what = Doing(f"a token for {self.registry}")
        failed = 0
        while True:
            try:
                response = self._ask_for_token(method, target, headers, body)
            except httpx2.TransportError as error:
                failed += 1
                if isinstance(error, _NOBODY) or not self._again(failed):
                    raise self.unreachable(what, error) from error
                continue
            with closing(response):
                if response.status_code == 200:
                    return self.read(what, response, failures.LIMIT)
                failed += 1
                if response.status_code in STATUSES and self._again(failed, response):
                    continue
                raise self.refusal(what, response, elsewhere=False)

    def _ask_for_token(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], body: bytes | None
    ) -> httpx2.Response:
        """One request and where it leads to: the password goes along within an origin, and from HTTP to HTTPS."""
        sent = dict(headers)
        for _ in range(_MAX_REDIRECTS):
            client = self._connections.to(url)
            response = client.send(client.build_request(method, url, headers=sent, content=body), stream=True)
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location or method != "GET":
                return response
            response.close()
            url, before = self.led(url, location), url
            safer = (before.scheme, url.scheme, url.host) == ("http", "https", before.host)
            if _origin(url) != _origin(before) and not safer:
                sent.pop("Authorization", None)
        raise RegistryError(f"{self.registry} redirects without end")


def _asked(error: httpx2.TransportError) -> httpx2.URL | None:
    """Whom the request went to that came to nothing."""
    try:
        return error.request.url
    except RuntimeError:
        return None


def _is_no_tls(error: httpx2.TransportError) -> bool:
    """Does the other side not even speak TLS?"""
    return failures.tls_error(error) is not None and not _is_of_trust(error)


def _is_of_trust(error: httpx2.TransportError) -> bool:
    """Is there a certificate that one of both does not trust?"""
    fault = failures.tls_error(error)
    return isinstance(fault, ssl.SSLCertVerificationError) or (fault is not None and failures.wants_certificate(fault))


def _challenges(response: httpx2.Response) -> list[challenge.Challenge]:
    return challenge.parse(response.headers.get_list("www-authenticate"))


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
