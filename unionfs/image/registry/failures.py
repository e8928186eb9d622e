"""What a refusal says: an answer of a registry as a `RegistryError`, in docker's words and with something to do.

    {"errors": [{"code": "DENIED", "message": "requested access to the resource is denied", "detail": …}]}

(distribution-spec, "Error Codes"). What a server says is cut, and rid of what a terminal would obey.
"""

from __future__ import annotations

import re
import ssl
from typing import Any, Final, NamedTuple

import httpx2

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.models import parse_json

#: Bytes of a refusal that are read.
LIMIT: Final = 64 << 10
_SHOWN: Final = 300


def plain(text: str, limit: int = _SHOWN) -> str:
    """Somebody else's text on one line, without control characters."""
    line = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    line = " ".join(line.split())
    return line if len(text) <= limit else line[:limit] + "…"


def words(body: bytes) -> str:
    """What the errors of a body say, as docker shows them: "code: message"; "" where there are none."""
    try:
        document = parse_json(body, "the answer")
    except ImageFormatError:
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    said = [_word(one) for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    if not said:
        # Token servers, OAuth2's (RFC 6749, 5.2) among them.
        said = [_text(document, key) for key in ("error_description", "details", "message", "error")]
    return plain("; ".join(dict.fromkeys(word for word in said[:5] if word)))


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _word(error: dict[str, Any]) -> str:
    code, message = _text(error, "code"), _text(error, "message")
    code = code.lower().replace("_", " ") if code != "UNKNOWN" else ""
    return ": ".join(part for part in (code, message) if part)


class Doing(NamedTuple):
    """What a request is for: a thing ("manifest for NAME"), and what is done with the image `name` ("pull")."""

    thing: str
    action: str = ""
    name: str = ""

    @property
    def denied(self) -> str:
        """Of who may not. That there is no such repository is told in no other way."""
        return f"{self.action} access denied for {self.name}" if self.action else self.thing


def refused(
    what: Doing, host: str, status: int, reason: str, body: bytes, *, known: bool, wait: float | None = None
) -> RegistryError:
    """An answer nobody hoped for. `known`: credentials were sent along. `wait`: so many seconds, it says."""
    said = words(body)
    login = f"unionfs login {host}"
    if status == 401:
        hint = f"the credentials for {host} were refused: {login}" if known else f"check the name, or {login}"
        return RegistryError(f"{what.denied}: {said or 'unauthorized: authentication required'}", hint=hint)
    if status == 403:
        hint = "check the name, and whether you may do that" if known else f"check the name, or {login}"
        return RegistryError(
            f"{what.denied}: {said or 'denied: requested access to the resource is denied'}", hint=hint
        )
    if status == 404:
        return RegistryError(f"{what.thing} not found" + (f": {said}" if said else ""), hint="check name and tag")
    if status == 429:
        hint = "wait a while" if wait is None else f"wait {wait:.0f} seconds"
        hint += "" if known else f", or {login}"
        return RegistryError(f"{what.thing}: {said or 'toomanyrequests: too many requests'}", hint=hint)
    return odd(what, host, status, reason, body)


def odd(what: Doing, host: str, status: int, reason: str, body: bytes) -> RegistryError:
    """An answer of which nothing is known but what it says."""
    answer, said = f"{status} {plain(reason)}".strip(), words(body)
    later = "try again later" if status >= 500 else "it may be one that only reads" if status == 405 else None
    return RegistryError(f"{what.thing}: {host} answered {answer}" + (f": {said}" if said else ""), hint=later)


def unreachable(what: Doing, host: str, error: httpx2.TransportError, *, proxied: bool = False) -> RegistryError:
    """A request that came to no answer. `proxied`: it may have gone by a proxy."""
    tls = tls_error(error)
    about = f"{what.thing}: " if what.thing else ""
    if isinstance(tls, ssl.SSLCertVerificationError):
        return RegistryError(
            f"{about}the certificate of {host} is not trusted: {plain(tls.verify_message)}",
            hint=f"put its CA into /etc/containers/certs.d/{host}/ca.crt, or name its directory with --cert-dir",
        )
    if tls is not None and wants_certificate(tls):
        return RegistryError(
            f"{about}{host} wants to see a certificate of yours: {plain(str(tls.reason))}",
            hint=f"put NAME.cert and NAME.key into /etc/containers/certs.d/{host}, or name a directory with --cert-dir",
        )
    if tls is not None:
        return RegistryError(
            f"{about}{host} does not speak TLS as it should: {plain(str(tls.reason or tls))}",
            hint="if it speaks HTTP, use --insecure",
        )
    if isinstance(error, httpx2.ProxyError):
        return RegistryError(f"{about}the proxy refuses: {plain(str(error))}", hint="look at HTTPS_PROXY and NO_PROXY")
    if isinstance(error, httpx2.TimeoutException):
        return RegistryError(f"{about}{host} does not answer", hint="try again later")
    if isinstance(error, httpx2.ConnectError):
        return RegistryError(
            f"{about}{host} cannot be reached: {_reason(error)}",
            hint="check its name and port" + (", and the proxy: HTTPS_PROXY and NO_PROXY" if proxied else ""),
        )
    return RegistryError(f"{about}the connection to {host} broke: {_reason(error)}", hint="try again")


def _reason(error: httpx2.TransportError) -> str:
    """In words, without the number before them that an OSError's text has."""
    return re.sub(r"^\[Errno -?\d+\] ", "", plain(str(error)))


def wants_certificate(error: ssl.SSLError) -> bool:
    """Is it an alert of the other side (RFC 8446, 6.2) about a certificate, or one that is missing?"""
    reason = str(error.reason)
    return "ALERT" in reason and ("CERTIFICATE" in reason or reason.endswith("UNKNOWN_CA"))


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """The fault of TLS that is behind an error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
