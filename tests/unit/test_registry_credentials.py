"""Auth files as docker and podman write them, and credential helpers, which are real programs here."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from unionfs.errors import RegistryError
from unionfs.image.reference import DEFAULT_DOMAIN
from unionfs.image.registry.credentials import HUB_KEY, AuthFiles, Credentials, hostname

HELPER = """#!/bin/sh
# Keeps what it is given, each server in a file of its own.
read -r line
case $1 in
get)
    cd {home}/kept
    name=$(printf %s "$line" | tr -c 'a-z0-9.\\n' _)
    if [ -e "$name" ]; then cat "$name"; else echo 'credentials not found in native keychain'; exit 1; fi ;;
store)
    server=$(printf %s "$line" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/')
    printf %s "$line" > "{home}/kept/$(printf %s "$server" | tr -c 'a-z0-9.\\n' _)" ;;
erase) rm -f "{home}/kept/$(printf %s "$line" | tr -c 'a-z0-9.\\n' _)" ;;
esac
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Home:
    """A home directory, and the auth files of who lives there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "PATH": f"{directory}/bin:/usr/bin:/bin",
        }

    @property
    def files(self) -> AuthFiles:
        return AuthFiles(self.environ, 1000)

    def write(self, path: str, document: Any) -> Path:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return file

    def docker(self, **document: Any) -> Path:
        return self.write(".docker/config.json", document)

    def podman(self, **document: Any) -> Path:
        return self.write("run/containers/auth.json", document)

    def helper(self, name: str, text: str = HELPER) -> None:
        (self.directory / "kept").mkdir(exist_ok=True)
        path = self.write(f"bin/docker-credential-{name}", text.replace("{home}", str(self.directory)))
        path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def of(user: str) -> dict[str, str]:
    return {"auth": encoded(f"{user}:secret")}


def test_nobody_is_anybody_without_files(home: Home) -> None:
    assert home.files.find("example.com") is None


def test_user_and_password(home: Home) -> None:
    home.docker(auths={"example.com": {"auth": encoded("me:se:cret")}})
    found = home.files.find("example.com")
    assert found == Credentials("me", "se:cret")
    assert found.basic == f"Basic {encoded('me:se:cret')}"
    assert "cret" not in repr(found)
    assert home.files.find("example.com:5000") is None


@pytest.mark.parametrize(
    ("entry", "credentials"),
    [
        ({"identitytoken": "abc"}, Credentials(identity_token="abc")),
        ({"auth": encoded("<token>:"), "identitytoken": "abc"}, Credentials("<token>", "", "abc")),
        ({"registrytoken": "abc"}, Credentials(registry_token="abc")),
        ({"username": "me", "password": "x"}, Credentials("me", "x")),
        ({"auth": encoded("me:secret\0\0")}, Credentials("me", "secret")),
        ({}, None),
        ({"auth": ""}, None),
        ("text", None),
    ],
)
def test_forms_of_an_entry(home: Home, entry: Any, credentials: Credentials | None) -> None:
    home.docker(auths={"example.com": entry})
    assert home.files.find("example.com") == credentials


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("example.com", "example.com"),
        ("https://example.com/v1/", "example.com"),
        ("http://example.com:5000", "example.com:5000"),
        (HUB_KEY, "docker.io"),
        ("docker.io", DEFAULT_DOMAIN),
        ("registry-1.docker.io", DEFAULT_DOMAIN),
    ],
)
def test_keys_of_a_registry(home: Home, key: str, registry: str) -> None:
    assert hostname(key) == registry
    home.docker(auths={key: of("me")})
    assert home.files.find(registry) == Credentials("me", "secret")


def test_longest_namespace_counts(home: Home) -> None:
    home.podman(auths={"example.com": of("all"), "example.com/team": of("team"), "example.com/team/app": of("app")})
    for path, user in {"team/app": "app", "team/other": "team", "team": "team", "teamster/x": "all", "": "all"}.items():
        assert home.files.find("example.com", path) == Credentials(user, "secret")


def test_namespace_is_nothing_for_the_rest(home: Home) -> None:
    home.podman(auths={"example.com/team": of("team")})
    assert home.files.find("example.com", "other/app") is None


def test_podman_goes_before_docker(home: Home) -> None:
    home.docker(auths={"example.com": of("docker"), "only.docker": of("docker")})
    home.podman(auths={"example.com": of("podman")})
    assert home.files.find("example.com") == Credentials("podman", "secret")
    assert home.files.find("only.docker") == Credentials("docker", "secret")


def test_file_that_is_named_is_the_only_one(home: Home) -> None:
    home.docker(auths={"example.com": of("docker")})
    named = str(home.write("named.json", {"auths": {}}))
    assert AuthFiles(home.environ, 0, named).find("example.com") is None
    assert AuthFiles({**home.environ, "REGISTRY_AUTH_FILE": named}, 0).find("example.com") is None
    assert AuthFiles({**home.environ, "REGISTRY_AUTH_FILE": named}, 0).written == named


def test_places_without_a_runtime_directory(tmp_path: Path) -> None:
    files = AuthFiles({"HOME": "/h"}, 7)
    assert files.paths == (
        "/run/containers/7/auth.json",
        "/h/.config/containers/auth.json",
        "/h/.docker/config.json",
    )
    assert AuthFiles({"HOME": "/h", "DOCKER_CONFIG": "/d"}, 7).written == "/d/config.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ('{"auths":{"example.com":{"auth":"%%%"}}}', "example.com: auth is not the base64"),
        ('{"auths":{"example.com":{"auth":"YWJj"}}}', "example.com: auth is not the base64"),
    ],
)
def test_file_that_cannot_be_read_is_named(home: Home, text: str, words: str) -> None:
    path = home.write(".docker/config.json", text)
    with pytest.raises(RegistryError, match=words) as e:
        home.files.find("example.com")
    assert str(path) in str(e.value) and e.value.hint


@pytest.mark.parametrize("document", ["", "[]", '{"auths": null}', '{"auths": []}', '{"credHelpers": 1, "auths": {}}'])
def test_file_without_credentials(home: Home, document: str) -> None:
    home.write(".docker/config.json", document)
    assert home.files.find("example.com") is None


# written --------------------------------------------------------------------------------------------------------------
def test_saving_keeps_all_else(home: Home) -> None:
    path = home.docker(auths={"other.com": of("other")}, HttpHeaders={"X": "y"}, psFormat="table")
    assert home.files.save("example.com", Credentials("me", "secret")) == str(path)
    assert json.loads(path.read_text()) == {
        "auths": {"other.com": of("other"), "example.com": of("me")},
        "HttpHeaders": {"X": "y"},
        "psFormat": "table",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert home.files.erase("example.com") is True
    assert home.files.erase("example.com") is False
    assert json.loads(path.read_text())["auths"] == {"other.com": of("other")}


def test_docker_hub_is_saved_under_dockers_name(home: Home) -> None:
    path = Path(home.files.save(DEFAULT_DOMAIN, Credentials("me", "secret")) or "")
    assert list(json.loads(path.read_text())["auths"]) == [HUB_KEY]
    assert home.files.find(DEFAULT_DOMAIN) == Credentials("me", "secret")
    assert home.files.erase(DEFAULT_DOMAIN)


def test_link_to_an_auth_file_stays_one(home: Home) -> None:
    home.write("real.json", {})
    (home.directory / ".docker").mkdir()
    (home.directory / ".docker/config.json").symlink_to(home.directory / "real.json")
    home.files.save("example.com", Credentials("me", "secret"))
    assert (home.directory / ".docker/config.json").is_symlink()
    assert "example.com" in (home.directory / "real.json").read_text()


def test_saving_goes_where_it_is_looked_for_first(home: Home) -> None:
    """Else what was just tried would be hidden by what podman has kept."""
    path = home.podman(auths={"docker.io": of("old"), "example.com": of("old"), "other.com": of("other")})
    assert home.files.save("example.com", Credentials("me", "secret")) == str(path)
    assert home.files.save(DEFAULT_DOMAIN, Credentials("me", "secret")) == str(path)
    assert json.loads(path.read_text())["auths"] == {
        "docker.io": of("me"), "example.com": of("me"), "other.com": of("other"),
    }  # fmt: skip
    assert home.files.save("third.com", Credentials("me", "secret")) == str(home.directory / ".docker/config.json")


def test_saving_mends_an_entry_that_cannot_be_read(home: Home) -> None:
    home.podman(auths={"example.com": {"auth": "%%%"}})
    home.files.save("example.com", Credentials("me", "secret"))
    assert home.files.find("example.com") == Credentials("me", "secret")


def test_nothing_is_left_of_a_registry_that_is_forgotten(home: Home) -> None:
    paths = [file(auths={"example.com": of("me"), "other.com": of("me")}) for file in (home.docker, home.podman)]
    assert home.files.erase("example.com") is True
    assert home.files.find("example.com") is None
    assert [list(json.loads(path.read_text())["auths"]) for path in paths] == [["other.com"]] * 2


def test_namespaces_of_a_registry_are_not_forgotten_with_it(home: Home) -> None:
    path = home.docker(auths={"https://example.com/v1/": of("me"), "example.com/team": of("team")})
    assert home.files.erase("example.com") is True
    assert home.files.erase("example.com") is False
    assert json.loads(path.read_text())["auths"] == {"example.com/team": of("team")}


# helpers --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("document", [{"credsStore": "kept"}, {"credHelpers": {"example.com": "kept"}}])
def test_helper_keeps_and_forgets(home: Home, document: dict[str, Any]) -> None:
    home.helper("kept")
    path = home.docker(**document)
    assert home.files.find("example.com") is None
    assert home.files.save("example.com", Credentials("me", "secret")) is None
    assert home.files.find("example.com") == Credentials("me", "secret")
    assert json.loads(path.read_text()) == document
    assert home.files.erase("example.com") is True
    assert home.files.erase("example.com") is False


def test_helper_of_a_namespace_is_not_for_all_of_its_registry(home: Home) -> None:
    home.docker(credHelpers={"example.com/team": "absent"}, auths={"example.com": of("me")})
    assert home.files.find("example.com") == Credentials("me", "secret")


def test_helper_with_an_identity_token(home: Home) -> None:
    home.helper("kept", '#!/bin/sh\necho \'{"ServerURL":"x","Username":"<token>","Secret":"abc"}\'\n')
    home.docker(credsStore="kept")
    assert home.files.find("example.com") == Credentials(identity_token="abc")


def test_helper_of_one_registry_is_for_no_other(home: Home) -> None:
    home.docker(credHelpers={"example.com": "absent"}, auths={"other.com": of("me")})
    assert home.files.find("other.com") == Credentials("me", "secret")


@pytest.mark.parametrize(
    ("helper", "words"),
    [
        (None, "docker-credential-broken cannot be run: No such file"),
        ("#!/bin/sh\necho; echo locked; echo for good >&2; exit 1\n", "broken get failed: locked for good$"),
        ("#!/bin/sh\necho no JSON\n", "is not JSON"),
        ("#!/bin/sh\necho '{}'\n", "holds no Username and Secret"),
    ],
)
def test_helper_that_fails(home: Home, helper: str | None, words: str) -> None:
    if helper is not None:
        home.helper("broken", helper)
    home.docker(credsStore="broken")
    with pytest.raises(RegistryError, match=words) as e:
        home.files.find("example.com")
    assert e.value.hint and e.value.hint.endswith("it, or take it out of credsStore and credHelpers in the auth file")


def test_helper_that_finds_nothing_may_still_keep(home: Home) -> None:
    home.helper("broken", '#!/bin/sh\n[ "$1" = store ]\n')
    home.docker(credsStore="broken")
    assert home.files.save("example.com", Credentials("me", "secret")) is None


def test_name_of_a_helper_is_no_path(home: Home) -> None:
    home.docker(credsStore="x/../../../bin/sh")
    with pytest.raises(RegistryError, match="is no name of a credential helper"):
        home.files.find("example.com")
