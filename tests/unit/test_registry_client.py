"""Requests to a registry that docker-registry cannot be made to answer: waits, redirects, tokens, odd servers. A
MockTransport stands for the network; the real ones are in tests/compat/test_registry_*."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from unionfs.errors import ImageFormatError, RegistryError
from unionfs.image.digest import Digest
from unionfs.image.layers import descriptor_of
from unionfs.image.reference import parse_normalized
from unionfs.image.registry import login, search, upload
from unionfs.image.registry.client import Client, RegistryOptions
from unionfs.image.registry.connections import is_local
from unionfs.image.registry.credentials import Credentials
from unionfs.image.registry.failures import Doing
from unionfs.image.registry.repository import Repository
from unionfs.image.registry.retry import Retry, seconds

Answer = httpx2.Response
Handler = Callable[[httpx2.Request], Answer]
WHAT = Doing("the thing")
NOW = 1_700_000_000.0
BEARER = 'Bearer realm="https://auth.example.com/token",service="example.com"'


class Network:
    """`handler` answers; requests, and seconds that were waited, are kept."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.requests: list[httpx2.Request] = []
        self.waited: list[float] = []

    def _answer(self, request: httpx2.Request) -> Answer:
        self.requests.append(request)
        answer = self._handler(request)
        # As from a network: the body is still to come.
        return Answer(answer.status_code, headers=answer.headers, stream=httpx2.ByteStream(answer.content))

    def client(self, registry: str = "example.com", credentials: Credentials | None = None, **more: Any) -> Client:
        def pause(event: threading.Event, delay: float) -> None:
            self.waited.append(delay)

        given: dict[str, Any] = {
            "environ": {"HOME": "/nonexistent"},
            "retry": Retry(pause=pause, clock=lambda: NOW),
            "transport": httpx2.MockTransport(self._answer),
        }
        return Client(registry, RegistryOptions(**given | more), credentials=credentials)

    def asked(self) -> list[str]:
        return [f"{request.method} {request.url}" for request in self.requests]


def after_meeting(handler: Handler) -> Network:
    """The first request, GET /v2/, is answered 200."""
    return Network(lambda request: Answer(200) if request.url.path == "/v2/" else handler(request))


# again ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({}, [0.25, 0.5]),
        ({"Retry-After": "3"}, [3, 3]),
        ({"Retry-After": "0"}, [0.25, 0.5]),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 GMT"}, [10, 10]),
        ({"Retry-After": "Tue, 14 Nov 2000 22:13:30 GMT"}, [0.25, 0.5]),
        ({"Retry-After": "soon"}, [0.25, 0.5]),
    ],
)
def test_retry_after_is_waited_for(headers: dict[str, str], waited: list[float]) -> None:
    answers = [Answer(429, headers=headers), Answer(503, headers=headers), Answer(200, content=b"it")]
    network = after_meeting(lambda request: answers.pop(0))
    with network.client() as client:
        assert client.request(WHAT, "GET", "/v2/x").body == b"it"
    assert network.waited == waited


@pytest.mark.parametrize("told", ["3600", "Tue, 14 Nov 2023 23:13:20 GMT"])
def test_who_is_to_wait_long_is_told_so(told: str) -> None:
    network = after_meeting(lambda request: Answer(429, headers={"Retry-After": told}))
    with network.client() as client, pytest.raises(RegistryError, match="the thing: toomanyrequests") as e:
        client.request(WHAT, "GET", "/v2/x")
    assert (network.waited, e.value.hint) == ([], "wait 3600 seconds, or unionfs login example.com")


def test_after_five_attempts_it_is_said() -> None:
    network = after_meeting(lambda request: Answer(503))
    with (
        network.client() as client,
        pytest.raises(RegistryError, match=r"example.com answered 503 Service Unavailable"),
    ):
        client.request(WHAT, "GET", "/v2/x")
    assert network.waited == [0.25, 0.5, 1, 2]


@pytest.mark.parametrize("status", [400, 404, 410, 501])
def test_what_will_not_change_is_not_asked_again(status: int) -> None:
    network = after_meeting(lambda request: Answer(status))
    with network.client() as client, pytest.raises(RegistryError):
        client.request(WHAT, "GET", "/v2/x")
    assert len(network.requests) == 2


def test_who_was_there_and_is_gone_is_looked_for_again() -> None:
    def handler(request: httpx2.Request) -> Answer:
        if len(network.requests) < 4:
            raise httpx2.ConnectError("refused", request=request)
        return Answer(200)

    network = after_meeting(handler)
    with network.client() as client:
        client.request(WHAT, "GET", "/v2/x")
    assert network.waited == [0.25, 0.5]


def test_who_was_never_there_is_not() -> None:
    def handler(request: httpx2.Request) -> Answer:
        raise httpx2.ConnectError("[Errno -2] Name or service not known", request=request)

    network = Network(handler)
    with (
        network.client() as client,
        pytest.raises(RegistryError, match=r"example.com cannot be reached: Name or service not known"),
    ):
        client.request(WHAT, "GET", "/v2/x")
    assert (len(network.requests), network.waited) == (1, [])


@pytest.mark.parametrize(("text", "told"), [("7", 7), (" 7 ", 7), ("-7", None), ("", None), ("9" * 40, 999999999999)])
def test_seconds_of_retry_after(text: str, told: float | None) -> None:
    assert seconds(text, NOW) == told


# elsewhere ------------------------------------------------------------------------------------------------------------
def redirecting(location: str) -> Network:
    def handler(request: httpx2.Request) -> Answer:
        if request.url.path != "/v2/x":
            return Answer(200, content=b"it")
        if "authorization" not in request.headers:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return Answer(307, headers={"Location": location})

    return after_meeting(handler)


@pytest.mark.parametrize(
    ("location", "carried"),
    [
        ("/elsewhere", True),
        ("https://example.com/elsewhere", True),
        ("https://example.com:443/elsewhere", True),
        ("https://example.com:8443/elsewhere", False),
        ("https://cdn.example.com/elsewhere?signature=x", False),
        ("//cdn.example.com/elsewhere", False),
    ],
)
def test_credentials_stay_at_their_origin(location: str, carried: bool) -> None:
    network = redirecting(location)
    with network.client(credentials=Credentials("me", "secret")) as client:
        assert client.request(WHAT, "GET", "/v2/x").body == b"it"
    assert ("authorization" in network.requests[-1].headers) is carried
    assert network.requests[-1].url.path == "/elsewhere"


@pytest.mark.parametrize(
    ("location", "hint"),
    [
        ("http://example.com/x", "a proxy before it has to send X-Forwarded-Proto"),
        ("http://cdn.example.com/x", None),
        ("file:///etc/passwd", None),
    ],
)
def test_nothing_leads_out_of_tls(location: str, hint: str | None) -> None:
    network = redirecting(location)
    with (
        network.client(credentials=Credentials("me", "secret")) as client,
        pytest.raises(RegistryError, match="which is not safe") as e,
    ):
        client.request(WHAT, "GET", "/v2/x")
    assert (len(network.requests), e.value.hint) == (3, hint)


@pytest.mark.parametrize("location", ["https://[::g]/x", "https://example.com:99999/x", f"https://{'a' * 64}.com/x"])
def test_nothing_leads_to_where_nobody_can_be(location: str) -> None:
    with (
        redirecting(location).client(credentials=Credentials("me", "secret")) as client,
        pytest.raises(RegistryError, match="which is nowhere"),
    ):
        client.request(WHAT, "GET", "/v2/x")


@pytest.mark.parametrize("registry", ["[:::::]", "a:99999", "localhost:x", f"{'a' * 64}.com", "a..b", ""])
def test_registry_that_has_no_address(registry: str) -> None:
    with pytest.raises(RegistryError, match="is no address of a registry") as e:
        after_meeting(lambda request: Answer(200)).client(registry)
    assert e.value.hint == "write HOST or HOST:PORT"


def test_who_is_led_to_and_does_not_answer_is_named() -> None:
    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "example.com":
            return Answer(307, headers={"Location": "https://cdn.example.com/x"})
        raise httpx2.ConnectError("refused", request=request)

    with (
        after_meeting(handler).client() as client,
        pytest.raises(RegistryError, match=r"the thing: cdn\.example\.com cannot be reached: refused"),
    ):
        client.request(WHAT, "GET", "/v2/x")


@pytest.mark.parametrize("path", ["/v2/", "/v2/x"])
def test_who_is_led_to_gets_no_password_by_asking_for_one(path: str) -> None:
    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "cdn.example.com":
            return Answer(401, headers={"WWW-Authenticate": 'Bearer realm="https://cdn.example.com/token"'})
        return Answer(307 if request.url.path == path else 200, headers={"Location": "https://cdn.example.com/x"})

    network = Network(handler)
    with network.client(credentials=Credentials("me", "secret")) as client, pytest.raises(RegistryError):
        for asked in ("/v2/x", "/v2/"):
            client.request(WHAT, "GET", asked)
    assert not any("authorization" in request.headers for request in network.requests)
    assert not any(request.url.path == "/token" for request in network.requests)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_who_is_led_to_has_nothing_to_say_of_logins(status: int) -> None:
    def handler(request: httpx2.Request) -> Answer:
        led = {"Location": "https://cdn.example.com/x"}
        return Answer(307, headers=led) if request.url.host == "example.com" else Answer(status)

    with (
        after_meeting(handler).client() as client,
        pytest.raises(RegistryError, match=rf"the thing: cdn\.example\.com answered {status}") as e,
    ):
        client.request(WHAT, "GET", "/v2/x")
    assert e.value.hint is None


def test_what_is_sent_whole_is_sent_where_it_is_led_to() -> None:
    def handler(request: httpx2.Request) -> Answer:
        if request.url.path == "/v2/x":
            return Answer(int(request.content or b"308"), headers={"Location": "/v2/y"})
        return Answer(201, content=request.content)

    network = after_meeting(handler)
    with network.client() as client:
        assert client.request(WHAT, "PUT", "/v2/x", body=b"307", expect=(201,)).body == b"307"
        for body in (b"302", iter([b"307"])):  # that asks for something else; and a body that is gone
            with (
                pytest.raises(RegistryError, match="answered 30"),
                client.stream(WHAT, "PUT", "/v2/x", body=body, expect=(201,)),
            ):
                pass


def test_redirects_have_an_end() -> None:
    network = after_meeting(lambda request: Answer(302, headers={"Location": f"{request.url}x"}))
    with network.client() as client, pytest.raises(RegistryError, match="redirects without end"):
        client.request(WHAT, "GET", "/v2/x")


def test_uploads_do_not_leave_tls_either() -> None:
    with after_meeting(lambda request: Answer(200)).client() as client:
        client.meet()
        with pytest.raises(RegistryError, match="which is not safe"):
            client.request(WHAT, "PATCH", "http://example.com/upload", body=b"")


@pytest.mark.parametrize(
    ("location", "sent_to"),
    [
        ("7?_state=x", "https://example.com/v2/a/b/blobs/uploads/7?_state=x&"),
        ("/up/7", "https://example.com/up/7?"),
        ("//cdn.example.com/7", "https://cdn.example.com/7?"),
        ("https://example.com:5000/7?a=b%20c", "https://example.com:5000/7?a=b%20c&"),
    ],
)
def test_blob_is_sent_where_the_registry_says(location: str, sent_to: str) -> None:
    def handler(request: httpx2.Request) -> Answer:
        return Answer(202, headers={"Location": location}) if request.method == "POST" else Answer(201)

    network = after_meeting(handler)
    blob = b"it"
    with network.client() as client:
        sending = upload.Upload(Repository(client, parse_normalized("example.com/a/b:1"), "push"), Digest.of(blob), 2)
        sending.send(io.BytesIO(blob), sending.mount()[1], lambda size: None)
    assert network.asked()[-1] == f"PUT {sent_to}digest={str(Digest.of(blob)).replace(':', '%3A')}"


def test_realm_without_tls_gets_no_password() -> None:
    challenge = 'Bearer realm="http://auth.example.com/token"'
    network = Network(lambda request: Answer(401, headers={"WWW-Authenticate": challenge}))
    with (
        network.client(credentials=Credentials("me", "secret")) as client,
        pytest.raises(RegistryError, match=r"wants tokens from http://auth.example.com/token, which is not safe"),
    ):
        client.request(WHAT, "GET", "/v2/x")
    assert network.asked() == ["GET https://example.com/v2/"]


def test_realm_without_tls_gets_one_where_nobody_minds() -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://auth.example.com/token"'}

    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "auth.example.com":
            return Answer(200, json={"token": "good"})
        return Answer(200 if "authorization" in request.headers else 401, headers=challenge)

    with Network(handler).client(insecure=True) as client:
        client.request(WHAT, "GET", "/v2/x")


def test_who_does_not_answer_at_all_is_not_waited_for_again() -> None:
    def handler(request: httpx2.Request) -> Answer:
        raise httpx2.ConnectTimeout("timed out", request=request)

    network = Network(handler)
    with network.client() as client, pytest.raises(RegistryError, match=r"example\.com does not answer"):
        client.request(WHAT, "GET", "/v2/x")
    assert len(network.requests) == 1


# environment ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("proxy", ["foo://127.0.0.1:1", "http://127.0.0.1:port"])
def test_proxy_that_is_none(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with (
        Client("example.com", RegistryOptions()) as client,
        pytest.raises(RegistryError, match="the proxy of the environment cannot be used: ") as e,
    ):
        client.meet()
    assert e.value.hint == "look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"


def test_proxy_that_is_not_there_is_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with (
        Client("example.com", RegistryOptions()) as client,
        pytest.raises(RegistryError, match=r"example.com cannot be reached: Connection refused") as e,
    ):
        client.meet()
    assert e.value.hint == "check its name and port, and the proxy: HTTPS_PROXY and NO_PROXY"


@pytest.mark.parametrize(("name", "words"), [("absent", "No such file"), ("text", "no certificate")])
def test_certificates_of_the_environment_that_are_none(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("hello")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
    with (
        Client("example.com", RegistryOptions()) as client,
        pytest.raises(RegistryError, match=f"the system's certificates cannot be read: .*{words}") as e,
    ):
        client.meet()
    assert e.value.hint == "look at SSL_CERT_FILE and SSL_CERT_DIR"


# tokens ---------------------------------------------------------------------------------------------------------------
def with_tokens(answer: Handler) -> Network:
    """Asks for a token; `answer` is the token server."""

    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "auth.example.com":
            return answer(request)
        sent = request.headers.get("authorization", "")
        if not sent.startswith("Bearer good"):
            return Answer(401, headers={"WWW-Authenticate": BEARER})
        return Answer(200, content=sent.encode())

    return Network(handler)


def test_token_is_fetched_ahead_and_kept_for_its_scope() -> None:
    network = with_tokens(lambda request: Answer(200, json={"token": f"good-{len(network.requests)}"}))
    with network.client() as client:
        first = [client.request(WHAT, "GET", "/v2/x", scopes=("repository:a:pull",)).body for _ in range(3)]
        other = client.request(WHAT, "GET", "/v2/x", scopes=("repository:b:pull",)).body
    assert (set(first), other) == ({b"Bearer good-2"}, b"Bearer good-6")
    assert network.asked()[1] == "GET https://auth.example.com/token?service=example.com&scope=repository%3Aa%3Apull"


def test_what_else_the_registry_wants_for_it_is_asked_for_too() -> None:
    """As one does that passes on what another has, under its names."""
    wants = f'{BEARER},scope="repository:inner/a:pull repository:a:pull"'

    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "auth.example.com":
            return Answer(200, json={"token": "-".join(request.url.params.get_list("scope"))})
        if "inner" in request.headers.get("authorization", ""):
            return Answer(200)
        return Answer(401, headers={"WWW-Authenticate": BEARER if request.url.path == "/v2/" else wants})

    network = Network(handler)
    with network.client() as client:
        for _ in range(2):
            client.request(WHAT, "GET", "/v2/x", scopes=("repository:a:pull,push",))
    tokens = [request for request in network.requests if request.url.host == "auth.example.com"]
    assert [request.url.params.get_list("scope") for request in tokens] == [
        ["repository:a:pull,push"],
        ["repository:a:pull,push", "repository:inner/a:pull"],
    ]


@pytest.mark.parametrize(
    ("location", "carried"),
    [
        ("/other", True),
        ("https://auth.example.com/other", True),
        ("https://auth.example.com:8443/other", False),
        ("https://b.com/t", False),
    ],
)
def test_token_server_that_has_moved(location: str, carried: bool) -> None:
    asked: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> Answer:
        if request.url.path == "/token":
            return Answer(301, headers={"Location": location})
        if request.url.host != "example.com":
            asked.append(request)
            return Answer(200, json={"token": "good"})
        return Answer(200 if "authorization" in request.headers else 401, headers={"WWW-Authenticate": BEARER})

    with Network(handler).client(credentials=Credentials("me", "secret")) as client:
        client.request(WHAT, "GET", "/v2/x")
    assert ["authorization" in request.headers for request in asked] == [carried]


def test_token_that_is_refused_is_fetched_once_more_and_no_more() -> None:
    network = with_tokens(lambda request: Answer(200, json={"token": "bad"}))
    with network.client() as client, pytest.raises(RegistryError, match="the thing: unauthorized"):
        client.request(WHAT, "GET", "/v2/x")
    assert len([request for request in network.requests if request.url.host == "auth.example.com"]) <= 3


def test_identity_token_is_posted() -> None:
    network = with_tokens(lambda request: Answer(200, json={"access_token": "good"}))
    with network.client(credentials=Credentials(identity_token="refresh")) as client:
        client.request(WHAT, "GET", "/v2/x", scopes=("repository:a:pull",))
    post = network.requests[1]
    assert (post.method, "authorization" in post.headers) == ("POST", False)
    assert b"grant_type=refresh_token" in post.content and b"refresh_token=refresh" in post.content


def test_token_of_the_registry_is_sent_as_it_is() -> None:
    network = with_tokens(lambda request: Answer(500))
    with network.client(credentials=Credentials(registry_token="good")) as client:
        assert client.request(WHAT, "GET", "/v2/x").body == b"Bearer good"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"token": 1}', b'{"token": "a\\r\\nX: y"}', b"no JSON", b'{"token": ""}']
)
def test_token_server_that_gives_none(body: bytes) -> None:
    network = with_tokens(lambda request: Answer(200, content=body))
    with network.client() as client, pytest.raises(RegistryError, match="token"):
        client.request(WHAT, "GET", "/v2/x")


def test_credentials_that_cannot_be_read_are_told_of_where_some_are_wanted(tmp_path: Path) -> None:
    """As docker and skopeo: who asks for what anybody may have gets it."""
    (tmp_path / "config.json").write_text('{"credsStore": "absent"}')

    def handler(request: httpx2.Request) -> Answer:
        if request.url.host == "auth.example.com":
            return Answer(200, json={"token": "anybody's"})
        known = "authorization" in request.headers
        return Answer(401 if not known else 200 if request.url.path == "/v2/public" else 403, headers=wanted)

    wanted = {"WWW-Authenticate": BEARER}
    with Network(handler).client(environ={"DOCKER_CONFIG": str(tmp_path), "PATH": "/nonexistent"}) as client:
        client.request(WHAT, "GET", "/v2/public")
        with pytest.raises(RegistryError, match="the thing: denied") as e:
            client.request(WHAT, "GET", "/v2/private")
    assert e.value.hint and e.value.hint.startswith(
        "no credentials were sent: docker-credential-absent cannot be run: "
    )


def test_token_server_that_is_busy_is_asked_again() -> None:
    answers = [Answer(503), Answer(429, headers={"Retry-After": "2"}), Answer(200, json={"token": "good"})]
    network = with_tokens(lambda request: answers.pop(0))
    with network.client() as client:
        client.request(WHAT, "GET", "/v2/x")
    assert network.waited == [0.25, 2]


def test_password_is_basic_where_both_are_offered_only_without_a_realm() -> None:
    def handler(request: httpx2.Request) -> Answer:
        if "authorization" in request.headers:
            return Answer(200, content=request.headers["authorization"].encode())
        return Answer(401, headers=[("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="r"')])

    with Network(handler).client(credentials=Credentials("me", "secret")) as client:
        assert client.request(WHAT, "GET", "/v2/x").body == b"Basic bWU6c2VjcmV0"


# blobs ----------------------------------------------------------------------------------------------------------------
def test_blob_that_is_shorter_than_its_manifest_says() -> None:
    def handler(request: httpx2.Request) -> Answer:
        return Answer(416) if "range" in request.headers else Answer(200, content=b"short")

    blob = descriptor_of("", Digest.of(b"longer"), 6)
    with (
        after_meeting(handler).client() as client,
        repository(client).download(blob) as stream,
        pytest.raises(ImageFormatError, match=f"blob {blob.digest} has no byte 5, and should have 6 bytes"),
    ):
        stream.read_all()


# manifests and catalogues ---------------------------------------------------------------------------------------------
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()


def repository(client: Client) -> Repository:
    return Repository(client, parse_normalized("example.com/a/b:1"), "pull")


@pytest.mark.parametrize("headers", [{}, {"Docker-Content-Digest": str(Digest.of(MANIFEST))}])
def test_registry_that_does_not_answer_head(headers: dict[str, str]) -> None:
    def handler(request: httpx2.Request) -> Answer:
        if request.method == "HEAD":
            return Answer(405)
        return Answer(200, content=MANIFEST, headers={"Content-Type": "application/json; charset=utf-8", **headers})

    with after_meeting(handler).client() as client:
        found, data = repository(client).resolve("1")
    assert (found, data) == (descriptor_of("application/json", Digest.of(MANIFEST), len(MANIFEST)), MANIFEST)


def test_digest_in_a_header_that_is_another() -> None:
    headers = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    network = after_meeting(
        lambda request: Answer(200, content=MANIFEST, headers=headers if request.method == "GET" else {})
    )
    with network.client() as client, pytest.raises(ImageFormatError, match="is damaged"):
        repository(client).resolve("1")


PINNED = parse_normalized(f"example.com/a/b@{Digest.of(b'another')}")


@pytest.mark.parametrize("head", [200, 405])
def test_digest_that_was_asked_for_is_the_one_that_counts(head: int) -> None:
    """Whatever the registry says that it gives in its place."""

    def handler(request: httpx2.Request) -> Answer:
        if request.method == "HEAD" and head != 200:
            return Answer(head)
        return Answer(200, content=MANIFEST, headers={"Docker-Content-Digest": str(Digest.of(MANIFEST))})

    with after_meeting(handler).client() as client, pytest.raises(ImageFormatError, match="is damaged"):
        asking = Repository(client, PINNED, "pull")
        found, data = asking.resolve(PINNED.digest or "")
        assert (found.digest, data) == (PINNED.digest, None)
        asking.manifest(found)


@pytest.mark.parametrize("headers", [{"Content-Length": "0"}, {"Docker-Content-Digest": "nonsense"}])
def test_answer_to_head_that_says_nothing(headers: dict[str, str]) -> None:
    told = {"Docker-Content-Digest": str(Digest.of(MANIFEST)), "Content-Length": str(len(MANIFEST))} | headers
    network = after_meeting(
        lambda request: Answer(200, headers=told) if request.method == "HEAD" else Answer(200, content=MANIFEST)
    )
    with network.client() as client:
        found, data = repository(client).resolve("1")
    assert (found.digest, found.size, data) == (Digest.of(MANIFEST), len(MANIFEST), MANIFEST)


@pytest.mark.parametrize("head", [200, 405])
def test_manifest_of_schema_1_is_called_what_it_is(head: int) -> None:
    """Its digest is not that of its bytes, which hold signatures too."""
    kind = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    network = after_meeting(
        lambda request: Answer(head if request.method == "HEAD" else 200, headers=kind, content=MANIFEST)
    )
    with network.client() as client, pytest.raises(ImageFormatError, match="a/b:1 is of schema 1") as e:
        repository(client).resolve("1")
    assert e.value.hint == "push it again, with a docker newer than 1.10"


def test_catalogue_goes_over_pages() -> None:
    def handler(request: httpx2.Request) -> Answer:
        last = request.url.params.get("last")
        if last is None:
            return Answer(
                200, json={"repositories": ["a", "b"]}, headers={"Link": '</v2/_catalog?last=b&n=2>; rel="next"'}
            )
        return Answer(200, json={"repositories": ["c\u001b[2J", 7]}, headers={"Link": f'<{request.url}>; rel="next"'})

    network = after_meeting(handler)
    options = network.client().options
    assert [match.name for match in search.search("example.com/", options)] == [
        "example.com/a",
        "example.com/b",
        "example.com/c [2J",
    ]


@pytest.mark.parametrize("status", [404, 405])
def test_registry_without_a_catalogue(status: int) -> None:
    options = after_meeting(lambda request: Answer(status)).client().options
    with pytest.raises(RegistryError, match="localhost:5000 shows no catalogue") as e:
        search.search("localhost:5000", options)
    assert e.value.hint == "not every registry has one to search in"


def test_login_at_what_is_no_registry() -> None:
    options = Network(lambda request: Answer(404)).client().options
    with pytest.raises(RegistryError, match=r"example\.com is no registry: it knows no /v2/"):
        login.login("example.com", Credentials("me", "secret"), options)


def test_docker_hub_is_searched_by_its_own_interface() -> None:
    found = {"name": "nginx", "description": "a\nserver", "star_count": 5, "is_official": True}
    network = after_meeting(lambda request: Answer(200, json={"results": [found, {"name": 3}, "x"]}))
    options = network.client().options
    assert search.search("nginx", options, 2) == [search.Match("nginx", "a server", 5, True), search.Match("")]
    assert network.asked()[-1] == "GET https://index.docker.io/v1/search?q=nginx&n=2"


def test_docker_hub_is_spoken_to_under_its_other_name() -> None:
    network = after_meeting(lambda request: Answer(404))
    with network.client("docker.io") as client, pytest.raises(RegistryError, match="not found"):
        client.request(WHAT, "GET", "/v2/library/x/manifests/latest")
    assert {request.url.host for request in network.requests} == {"registry-1.docker.io"}


@pytest.mark.parametrize(
    ("name", "local"),
    [
        *((name, True) for name in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "a.localhost")),
        *((name, False) for name in ("example.com", "localhost.example.com", "10.0.0.1", "")),
    ],
)
def test_this_machine_is_known_by_its_names(name: str, local: bool) -> None:
    assert is_local(name) is local
