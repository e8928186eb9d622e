"""Who may: passwords, tokens and certificates, at Debian's docker-registry; and credentials that skopeo has kept."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.image_peers import skopeo
from tests.compat.registry_rig import Certificate, Peer, RegistryServer, TokenServer, certificate
from tests.compat.test_registry_pull import image
from tests.requirements import requires
from unionfs import api
from unionfs.errors import RegistryError

pytestmark = requires("docker-registry", "skopeo", "openssl")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RegistryServer]:
    """Wants a password."""
    with RegistryServer(tmp_path, password=True) as server:
        yield server


# passwords ------------------------------------------------------------------------------------------------------------
def test_nothing_comes_without_a_password(guarded: RegistryServer, peer: Peer) -> None:
    with pytest.raises(RegistryError, match=r"^pull access denied for .*: unauthorized: authentication required") as e:
        api.pull_image(peer.store, f"{guarded.host}/a/b:1", options=peer.options)
    assert e.value.hint == f"check the name, or unionfs login {guarded.host}"


def test_login_then_push_and_pull(guarded: RegistryServer, peer: Peer) -> None:
    peer.load(image(f"{guarded.host}/a/b:1"))
    path = api.login(guarded.host, "user", "secret", options=peer.options)
    assert path == str(peer.directory / "home/.docker/config.json")
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    api.push_image(peer.store, f"{guarded.host}/a/b:1", options=peer.options)
    api.pull_image(peer.store, f"{guarded.host}/a/b:1", options=peer.options)
    assert api.logout(guarded.host, options=peer.options) is True
    assert api.logout(guarded.host, options=peer.options) is False
    with pytest.raises(RegistryError, match="access denied"):
        api.pull_image(peer.store, f"{guarded.host}/a/b:1", options=peer.options)


def test_wrong_password_is_not_kept(guarded: RegistryServer, peer: Peer) -> None:
    with pytest.raises(RegistryError, match=r"^login: unauthorized") as e:
        api.login(guarded.host, "user", "wrong", options=peer.options)
    assert e.value.hint == "check user name and password"
    assert not (peer.directory / "home").exists()


def test_credentials_are_shared_with_skopeo_in_both_directions(guarded: RegistryServer, peer: Peer) -> None:
    file = peer.directory / "auth.json"
    options = replace(peer.options, authfile=str(file))
    skopeo("login", "--authfile", file, "--tls-verify=false", "-u", "user", "-p", "secret", guarded.host)
    peer.load(image(f"{guarded.host}/a/b:1"))
    api.push_image(peer.store, f"{guarded.host}/a/b:1", options=options)
    api.logout(guarded.host, options=options)
    assert json.loads(file.read_text())["auths"] == {}
    api.login(guarded.host, "user", "secret", options=options)
    skopeo("inspect", "--authfile", file, "--tls-verify=false", f"docker://{guarded.host}/a/b:1")


def test_password_stays_with_the_registry_that_asked(guarded: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    """A blob that lies at another host is fetched there without it (the registry is one without, filled the same)."""
    peer.load(image(f"{guarded.host}/a/b:1"))
    api.login(guarded.host, "user", "secret", options=peer.options)
    api.push_image(peer.store, f"{guarded.host}/a/b:1", options=peer.options)
    (tmp_path / "open").mkdir()
    with (
        RegistryServer(tmp_path / "open") as other,
        FaultyProxy(other.host) as host,
        FaultyProxy(guarded.host) as front,
    ):
        peer.store.tag(f"{guarded.host}/a/b:1", f"{other.host}/a/b:1")
        api.push_image(peer.store, f"{other.host}/a/b:1", options=peer.options)

        def elsewhere(request: Request) -> Fault | None:
            location = {"Location": f"http://{host.host}{request.path}"}
            return Fault(status=307, headers=location) if request.is_blob else None

        front.plan = elsewhere
        second = Peer(tmp_path, "second")
        api.login(front.host, "user", "secret", options=second.options)
        api.pull_image(second.store, f"{front.host}/a/b:1", options=second.options)
    assert any("Authorization" in request.headers for request in front.requests)
    assert len(host.requests) == 3
    assert not any("Authorization" in request.headers for request in host.requests)


# tokens ---------------------------------------------------------------------------------------------------------------
def test_tokens_are_fetched_for_what_is_done(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with TokenServer(tmp_path, signed) as tokens, RegistryServer(tmp_path, token=tokens) as registry:
        peer.load(image(f"{registry.host}/a/b:1"))
        with pytest.raises(RegistryError, match=r"^push access denied for .*authentication required"):
            api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        api.login(registry.host, "user", "secret", options=peer.options)
        tokens.asked.clear()
        api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        assert tokens.asked == [("user", ("repository:a/b:pull,push",))]
        tokens.asked.clear()
        second = Peer(tmp_path, "second", {"environ": {"HOME": "/nonexistent"}})
        api.pull_image(second.store, f"{registry.host}/a/b:1", options=second.options)
        assert tokens.asked == [("", ("repository:a/b:pull",))]


def test_mounting_asks_for_both_repositories(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with TokenServer(tmp_path, signed) as tokens, RegistryServer(tmp_path, token=tokens) as registry:
        peer.load(image(f"{registry.host}/a/b:1"))
        api.login(registry.host, "user", "secret", options=peer.options)
        api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        peer.store.tag(f"{registry.host}/a/b:1", f"{registry.host}/c:1")
        tokens.asked.clear()
        told: list[api.Transfer] = []
        api.push_image(peer.store, f"{registry.host}/c:1", options=peer.options, report=told.append)
        assert {transfer.status for transfer in told if transfer.id} == {"Preparing", "Mounted from a/b"}
        assert ("user", ("repository:a/b:pull", "repository:c:pull,push")) in tokens.asked


def test_layers_that_may_not_be_mounted_are_sent(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with TokenServer(tmp_path, signed) as tokens, RegistryServer(tmp_path, token=tokens) as registry:
        peer.load(image(f"{registry.host}/a/b:1"))
        api.login(registry.host, "user", "secret", options=peer.options)
        api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        peer.store.tag(f"{registry.host}/a/b:1", f"{registry.host}/c:1")
        tokens.closed.add("a/b")
        told: list[api.Transfer] = []
        api.push_image(peer.store, f"{registry.host}/c:1", options=peer.options, report=told.append)
        assert {transfer.status for transfer in told if transfer.id} == {"Preparing", "Pushing", "Pushed"}


def test_token_that_runs_out_in_the_middle_of_a_push(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with TokenServer(tmp_path, signed) as tokens, RegistryServer(tmp_path, token=tokens) as registry:
        with FaultyProxy(registry.host) as front:
            # As it asks when a token is too old.
            front.plan = lambda request: (
                Fault(without=("Authorization",)) if request.method == "PUT" and request.seen == 1 else None
            )
            peer.load(image(f"{front.host}/a/b:1"))
            api.login(front.host, "user", "secret", options=peer.options)
            pushed = api.push_image(peer.store, f"{front.host}/a/b:1", options=peer.options)
        second = Peer(tmp_path, "second")
        name = f"{registry.host}/a/b@{pushed.digest}"
        assert api.pull_image(second.store, name, options=second.options).id == image().id


def test_wrong_password_at_the_token_server(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path, signed) as tokens,
        RegistryServer(tmp_path, token=tokens) as registry,
        pytest.raises(RegistryError, match="incorrect username or password"),
    ):
        api.login(registry.host, "user", "wrong", options=peer.options)


def test_token_that_has_run_out_is_fetched_anew(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    with TokenServer(tmp_path, signed) as tokens, RegistryServer(tmp_path, token=tokens) as registry:
        peer.load(image(f"{registry.host}/a/b:1"))
        api.login(registry.host, "user", "secret", options=peer.options)
        api.push_image(peer.store, f"{registry.host}/a/b:1", options=peer.options)
        with FaultyProxy(registry.host) as front:
            # The registry asks again, as it does when a token is too old.
            front.plan = lambda request: (
                Fault(without=("Authorization",)) if request.is_blob and request.seen == 1 else None
            )
            tokens.asked.clear()
            second = Peer(tmp_path, "second")
            api.pull_image(second.store, f"{front.host}/a/b:1", options=second.options)
        assert 2 <= len(tokens.asked) <= 4  # one for each blob that was refused, at most


# certificates ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def encrypted(tmp_path: Path, signed: Certificate) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path, certificate=signed) as server:
        yield server


def trusting(directory: Path, signed: Certificate) -> str:
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(signed.authority.read_bytes())
    return str(directory)


def test_certificate_of_nobody_known_is_refused(encrypted: RegistryServer, peer: Peer) -> None:
    with pytest.raises(RegistryError, match=f"the certificate of {encrypted.host} is not trusted") as e:
        api.pull_image(peer.store, f"{encrypted.host}/a/b:1", options=peer.options)
    assert e.value.hint and f"/etc/containers/certs.d/{encrypted.host}/ca.crt" in e.value.hint


def test_authority_in_a_directory_is_trusted(
    encrypted: RegistryServer, peer: Peer, tmp_path: Path, signed: Certificate
) -> None:
    peer.load(image(f"{encrypted.host}/a/b:1"))
    options = replace(peer.options, cert_dir=trusting(tmp_path / "certificates", signed))
    pushed = api.push_image(peer.store, f"{encrypted.host}/a/b:1", options=options)
    # certs.d of the user
    trusting(tmp_path / "home/.config/containers/certs.d" / encrypted.host, signed)
    second = Peer(tmp_path, "second")
    assert api.pull_image(second.store, f"{encrypted.host}/a/b:1", options=second.options).digest == pushed.digest


def test_authority_of_the_environment_is_trusted(
    encrypted: RegistryServer, peer: Peer, signed: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(signed.authority))
    peer.load(image(f"{encrypted.host}/a/b:1"))
    api.push_image(peer.store, f"{encrypted.host}/a/b:1", options=peer.options)


def test_insecure_takes_any_certificate(encrypted: RegistryServer, peer: Peer) -> None:
    peer.load(image(f"{encrypted.host}/a/b:1"))
    api.push_image(peer.store, f"{encrypted.host}/a/b:1", options=replace(peer.options, insecure=True))


def test_authority_of_a_registry_is_that_of_its_token_server(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    """As skopeo has it, which asks one as the other."""
    with (
        TokenServer(tmp_path, signed, tls=True) as tokens,
        RegistryServer(tmp_path, token=tokens, certificate=signed) as registry,
    ):
        directory = trusting(tmp_path / "certificates", signed)
        arguments = ("-u", "user", "-p", "secret", "--authfile", tmp_path / "auth.json", registry.host)
        skopeo("login", "--cert-dir", directory, *arguments)
        api.login(registry.host, "user", "secret", options=replace(peer.options, cert_dir=directory))
        api.login(registry.host, "user", "secret", options=replace(peer.options, insecure=True))
        with pytest.raises(RegistryError, match="is not trusted"):
            api.login(registry.host, "user", "secret", options=peer.options)


def test_registry_that_wants_a_certificate_too(peer: Peer, signed: Certificate, tmp_path: Path) -> None:
    directory = trusting(tmp_path / "certificates", signed)
    options = replace(peer.options, cert_dir=directory)
    with RegistryServer(tmp_path, certificate=signed, mutual=True) as registry:
        for insecure in (False, True):
            with pytest.raises(RegistryError, match=f"{registry.host} wants to see a certificate of yours") as e:
                api.search(f"{registry.host}/", options=replace(options, insecure=insecure))
            assert e.value.hint and e.value.hint.startswith("put NAME.cert and NAME.key into /etc/containers/certs.d/")
        (Path(directory) / "me.cert").write_bytes(signed.server.read_bytes())
        (Path(directory) / "me.key").write_bytes(signed.key.read_bytes())
        for insecure in (False, True):
            assert api.search(f"{registry.host}/", options=replace(options, insecure=insecure)) == []


def test_directory_of_certificates_that_is_none(encrypted: RegistryServer, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/ca.crt").write_text("no certificate")
    (tmp_path / "lonely").mkdir()
    (tmp_path / "lonely/client.cert").write_text("")
    for directory, words in (
        ("absent", "is no directory of certificates"),
        ("bad", "cannot be used as a certificate"),
        ("lonely", "has no key beside it"),
    ):
        options = replace(peer.options, cert_dir=str(tmp_path / directory))
        with pytest.raises(RegistryError, match=words):
            api.pull_image(peer.store, f"{encrypted.host}/a/b:1", options=options)
