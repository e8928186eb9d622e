"""A registry of a test's own: Debian's docker-registry on loopback, plain, with passwords, with tokens, or with TLS.

with RegistryServer(tmp_path) as registry:       registry.host is "127.0.0.1:PORT"
certificate(directory)                           an authority, and a server's certificate for 127.0.0.1
TokenServer(directory, certificate)              hands out the tokens that a registry with `token=` wants
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.compat.image_peers import skopeo
from tests.unit.image_rig import Made, files_tar, oci_files, open_store
from unionfs.image.registry.client import RegistryOptions
from unionfs.image.registry.retry import Retry
from unionfs.image.store import Store

#: bcrypt of "secret".
HTPASSWD = "user:$2y$05$jwJuktnrR2Ww.1m7Q8VAaOClp4K1Lb4k7kD9JN.yJyCMFR.Nq8gn6\n"


class RegistryServer:
    """`password`: user "user" with "secret". `certificate`: speaks TLS with it; `mutual`: with who has one of the same
    authority. `token`: wants tokens from there."""

    def __init__(
        self,
        directory: Path,
        *,
        password: bool = False,
        certificate: Certificate | None = None,
        token: TokenServer | None = None,
        read_only: bool = False,
        mutual: bool = False,
    ) -> None:
        self.directory = directory / "registry"
        self.directory.mkdir()
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}, "delete": {"enabled": True}},
            "http": {"addr": "127.0.0.1:0", "secret": "of the upload states"},
        }
        if read_only:
            config["storage"]["maintenance"] = {"readonly": {"enabled": True}}
        if password:
            (self.directory / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "a test's", "path": str(self.directory / "htpasswd")}}
        if token is not None:
            config["auth"] = {
                "token": {
                    "realm": token.realm,
                    "service": token.service,
                    "issuer": token.issuer,
                    "rootcertbundle": str(token.certificate.authority),
                }
            }
        if certificate is not None:
            config["http"]["tls"] = {"certificate": str(certificate.server), "key": str(certificate.key)}
            if mutual:
                config["http"]["tls"]["clientcas"] = [str(certificate.authority)]
        (self.directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self._process: subprocess.Popen[str] | None = None
        self.host = ""

    def __enter__(self) -> RegistryServer:
        log = self.directory / "log"
        with open(log, "w") as file:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", self.directory / "config.yml"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                text=True,
            )
        try:
            for _ in range(3000):
                if found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text()):
                    self.host = found[1]
                    return self
                if self._process.poll() is not None:
                    break
                time.sleep(0.01)
            raise AssertionError(f"docker-registry does not start: {log.read_text()}")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def blob(self, digest: str) -> Path:
        """The file that holds a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.directory / f"data/docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"


# who may --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Certificate:
    """`authority` signs `server`, which is for 127.0.0.1 and localhost and has `key`."""

    authority: Path
    server: Path
    key: Path


def certificate(directory: Path) -> Certificate:
    directory.mkdir(exist_ok=True)
    made = Certificate(directory / "ca.crt", directory / "server.pem", directory / "server.key")
    ca_key = directory / "authority.key"
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def run(*argv: str | Path) -> None:
        subprocess.run(argv, check=True, capture_output=True, cwd=directory)

    run(*new, "-x509", "-days", "30", "-subj", "/CN=a test's authority", "-keyout", ca_key, "-out", made.authority)
    run(*new, "-subj", "/CN=127.0.0.1", "-keyout", made.key, "-out", "server.csr")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signer: list[str | Path] = ["-CA", made.authority, "-CAkey", ca_key, "-CAcreateserial"]
    run(
        "openssl", "x509", "-req", "-in", "server.csr", "-days", "30", *signer, "-extfile", "names", "-out", made.server
    )
    return made


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Signs a token (JWT, ES256) for what is asked; for pushing only to "user" with the password "secret".

    `tls`: it speaks it. `life`: seconds that its tokens say they live. `asked`: (user, scopes) of each request.
    `closed`: repositories that nobody gets anything of."""

    def __init__(self, directory: Path, certificate: Certificate, life: int = 300, *, tls: bool = False) -> None:
        self.certificate, self._directory, self._life = certificate, directory, life
        self.service, self.issuer = "a test's registry", "a test's issuer"
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.closed: set[str] = set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}/token"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.server, certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(request.path).query)
        sent = request.headers.get("Authorization", "")
        user = "user" if sent == "Basic " + base64.b64encode(b"user:secret").decode() else ""
        scopes = tuple(query.get("scope", []))
        self.asked.append((user, scopes))
        refused = bool(sent) and not user
        body = {"details": "incorrect username or password"} if refused else {"token": self._token(user, scopes)}
        data = json.dumps(body).encode()
        request.send_response(401 if refused else 200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _token(self, user: str, scopes: Sequence[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [action for action in actions.split(",") if user or action == "pull"]
            granted = [] if name in self.closed else granted
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer, "sub": user, "aud": self.service, "exp": now + self._life, "nbf": now - 10,
            "iat": now, "jti": "1", "access": access,
        }  # fmt: skip
        pem = self.certificate.server.read_text()
        der = "".join(pem.split("-----")[2].split())
        head = {"typ": "JWT", "alg": "ES256", "x5c": [der]}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.certificate.key],
            input=signed.encode(),
            capture_output=True,
            check=True,
        )
        return f"{signed}.{_base64url(_raw_signature(done.stdout))}"


def _raw_signature(der: bytes) -> bytes:
    """ECDSA's two numbers of 32 bytes (RFC 7518, 3.4), from their DER."""
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2 : at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)


# stores and images ----------------------------------------------------------------------------------------------------
def no_pause(*_: object) -> None:
    """In place of waiting."""


@dataclass
class Peer:
    """A store that pulls and pushes, quickly tried again. `environ` has no auth files but those below `directory`."""

    directory: Path
    name: str = "store"
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store: Store = open_store(self.directory, self.name)

    @property
    def options(self) -> RegistryOptions:
        home = str(self.directory / "home")
        environ = {"HOME": home, "XDG_RUNTIME_DIR": f"{home}/run", "PATH": "/usr/bin:/bin"}
        given: dict[str, Any] = {"environ": environ, "retry": Retry(pause=no_pause), "patience": 20, **self.more}
        return RegistryOptions(**given)

    def load(self, *images: Made, compression: str = "gzip") -> None:
        """Bring images into the store, under their names."""
        path = self.directory / "images.tar"
        path.write_bytes(files_tar(oci_files(images, compression)))
        self.store.load(path)


def serve_image(registry: RegistryServer, directory: Path, image: Made, *, compression: str = "gzip") -> None:
    """skopeo puts the image into the registry, under its first name, the bytes as they are."""
    layout = directory / "served.tar"
    layout.write_bytes(files_tar(oci_files([image], compression)))
    name = image.tags[0]
    skopeo(
        "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci-archive:{layout}:{name}",
        f"docker://{registry.host}/{name.partition('/')[2]}",
    )  # fmt: skip
