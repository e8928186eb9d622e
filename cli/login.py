"""`unionfs login` and `logout`: credentials for registries, in docker's and podman's files."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unionfs import api

from .options import AuthFile, CertDir, Insecure
from .output import note, text

Registry = Annotated[
    str, typer.Argument(metavar="REGISTRY", help="HOST[:PORT]. Default: docker.io's.", show_default=False)
]
#: A password is a line, not a file.
MAX_PASSWORD = 64 << 10


def login(
    registry: Registry = "",
    username: Annotated[
        str | None, typer.Option("-u", "--username", metavar="NAME", help="Default: asked for.", show_default=False)
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            "-p", "--password", metavar="TEXT", help="Seen by others: better --password-stdin.", show_default=False
        ),
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    insecure: Insecure = False,
    cert_dir: CertDir = None,
    authfile: AuthFile = None,
) -> None:
    """Try credentials at a registry, and keep them for pull and push.

    They go where docker would put them: ~/.docker/config.json, or the credential helper named there.
    If a file of podman's knows the registry, they go there.
    """
    if password is not None and password_stdin:
        raise typer.BadParameter("--password and --password-stdin are mutually exclusive")
    if password_stdin and username is None:
        raise typer.BadParameter("must provide --username with --password-stdin")
    if password is not None:
        note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if password_stdin:
        password = os.fsdecode(sys.stdin.buffer.read(MAX_PASSWORD)).rstrip("\r\n")
    if username is None or password is None:
        if not sys.stdin.isatty():
            raise api.OptionError(
                "cannot perform an interactive login from a non TTY device", hint="use --username and --password-stdin"
            )
        username = username or typer.prompt("Username").strip()
        password = password if password is not None else typer.prompt("Password", hide_input=True)
    path = api.login(registry, username, password, options=api.RegistryOptions(insecure, cert_dir, authfile))
    if path is not None:
        note(
            f"WARNING! Your credentials are stored unencrypted in '{path}'. A credential helper (credsStore) would not."
        )
    text("Login Succeeded")


def logout(registry: Registry = "", authfile: AuthFile = None) -> None:
    """Forget the credentials for a registry, docker's and podman's."""
    shown = registry or "docker.io"
    known = api.logout(registry, options=api.RegistryOptions(authfile=authfile))
    text(f"Removing login credentials for {shown}" if known else f"Not logged in to {shown}")
