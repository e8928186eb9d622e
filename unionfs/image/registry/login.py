"""Logging in: credentials tried at a registry, and then kept; logging out: forgotten."""

from __future__ import annotations

from unionfs.errors import OptionError, RegistryError
from unionfs.image.reference import DEFAULT_DOMAIN
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.credentials import Credentials, hostname
from unionfs.image.registry.failures import Doing


def registry_of(text: str) -> str:
    """The registry that a person names: a host with its port, an address, or "" for Docker Hub. OptionError."""
    host = hostname(text.strip()) or DEFAULT_DOMAIN
    if any(char.isspace() or char in "@?#\\" for char in host):
        raise OptionError(f"{text!r} is no registry", hint="write HOST or HOST:PORT")
    return host


def login(registry: str, credentials: Credentials, options: RegistryOptions) -> str | None:
    """Try the credentials and keep them. Where: a file, which holds them as they are, or None, a helper.

    RegistryError where the registry refuses them; nothing is then changed. OptionError for what can be none (RFC 7617).
    """
    what = Doing("login")
    texts = f"{credentials.username}{credentials.password}"
    if not credentials.username or not credentials.password:
        raise OptionError("username and password are required")
    if ":" in credentials.username or any("\ud800" <= char <= "\udfff" for char in texts):
        raise OptionError("that is no user name or no password", hint="a name has no colon; both are UTF-8")
    with Client(registry, options, credentials=credentials) as client:
        try:
            answer = client.request(what, "GET", "/v2/", expect=(200, 404))
        except RegistryError as error:
            if client.authorizer.known:
                raise RegistryError(str(error), hint="check user name and password") from error
            raise
    if answer.status == 404:
        raise RegistryError(f"{registry} is no registry: it knows no /v2/", hint="check its name and port")
    return options.auth_files().save(registry, credentials)


def logout(registry: str, options: RegistryOptions) -> bool:
    """Forget the credentials; whether there were any."""
    return options.auth_files().erase(registry)
