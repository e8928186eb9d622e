"""`unionfs image pull` and `push`, `login`, `logout` and `search`, as processes: what they print, and what not."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.compat.faulty_proxy import Fault, FaultyProxy, Request
from tests.compat.image_rig import Images
from tests.compat.registry_rig import RegistryServer, serve_image
from tests.requirements import requires
from tests.unit.cli_runner import PROJECT, process_of, program, refused
from tests.unit.image_rig import layer, made_image
from unionfs.image import locks

pytestmark = requires("docker-registry", "skopeo")

MADE = made_image("x/a/b:latest", layer(etc__motd="hello"), layer(bin__sh="#!"))


@pytest.fixture
def cli(tmp_path: Path) -> Images:
    (tmp_path / "cli").mkdir()
    return Images(tmp_path / "cli", env={"XDG_RUNTIME_DIR": str(tmp_path / "cli/run")})


def test_pull_says_what_docker_says(registry: RegistryServer, cli: Images, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, MADE)
    lines = cli.run("image", "pull", f"{registry.host}/a/b").splitlines()
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from a/b"]
    digest = lines[-3].removeprefix("Digest: ")
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert lines[-2:] == [
        f"Status: Downloaded newer image for {registry.host}/a/b:latest",
        f"{registry.host}/a/b:latest",
    ]
    assert sorted(line.partition(": ")[2] for line in lines[2:-3]) == ["Pull complete"] * 2 + ["Pulling fs layer"] * 2

    again = cli.run("image", "pull", f"{registry.host}/a/b:latest").splitlines()
    assert again[0] == "latest: Pulling from a/b"
    assert {line.partition(": ")[2] for line in again[1:-3]} == {"Already exists"}
    assert again[-3:-1] == [f"Digest: {digest}", f"Status: Image is up to date for {registry.host}/a/b:latest"]

    by_digest = cli.run("image", "pull", f"{registry.host}/a/b@{digest}").splitlines()
    assert by_digest[0] == f"{registry.host}/a/b@{digest}: Pulling from a/b"
    assert cli.run("image", "pull", "-q", f"{registry.host}/a/b") == f"{registry.host}/a/b:latest"


def test_push_says_what_docker_says(registry: RegistryServer, cli: Images, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, MADE)
    cli.run("image", "pull", "-q", f"{registry.host}/a/b")
    cli.run("image", "tag", f"{registry.host}/a/b", f"{registry.host}/c:1")
    lines = cli.run("image", "push", f"{registry.host}/c:1").splitlines()
    assert lines[0] == f"The push refers to repository [{registry.host}/c]"
    statuses = sorted(line.partition(": ")[2] for line in lines[1:-1])
    assert statuses == ["Mounted from a/b"] * 2 + ["Preparing"] * 2
    assert re.fullmatch(r"1: digest: sha256:[0-9a-f]{64} size: \d+", lines[-1])
    assert cli.run("image", "push", "-q", f"{registry.host}/c:1") == f"{registry.host}/c:1"


def test_login_keeps_what_the_registry_takes(cli: Images, tmp_path: Path) -> None:
    with RegistryServer(tmp_path, password=True) as registry:
        refused(
            cli.call("image", "pull", f"{registry.host}/a/b:1"),
            1,
            "pull access denied",
            f"check the name, or unionfs login {registry.host}",
        )
        wrong = cli.call("login", "-u", "user", "--password-stdin", registry.host, stdin=b"wrong\n")
        refused(wrong, 1, "login: unauthorized", "check user name and password")
        done = cli.call("login", "-u", "user", "--password-stdin", registry.host, stdin=b"secret\n")
        assert (done.status, done.out) == (0, b"Login Succeeded\n")
        assert done.errors[0].startswith("WARNING! Your credentials are stored unencrypted in ")
        assert b"secret" not in done.err
        refused(
            cli.call("image", "pull", f"{registry.host}/a/b:1"), 1, "not found: manifest unknown", "check name and tag"
        )
        assert cli.run("logout", registry.host) == f"Removing login credentials for {registry.host}"
        assert cli.run("logout", registry.host) == f"Not logged in to {registry.host}"


@pytest.mark.timeout(60)
def test_login_asks_at_a_terminal(cli: Images, tmp_path: Path) -> None:
    with RegistryServer(tmp_path, password=True) as registry:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*process_of(), "login", registry.host],
            stdin=theirs, stdout=theirs, stderr=theirs, env=cli.environment, cwd=PROJECT, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        # With the space: what is typed before it, getpass(3)'s flush would throw away.
        for asked, answer in ((b"Username: ", b"user\n"), (b"Password: ", b"secret\n"), (b"Succeeded", b"")):
            while asked not in seen:
                seen += os.read(ours, 65536)
            os.write(ours, answer)
        os.close(ours)
        assert process.wait(60) == 0
        assert b"secret" not in seen


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("key", "status"), [(b"\x03", -signal.SIGINT), (b"\x04", 1)])
def test_login_that_is_not_answered(cli: Images, key: bytes, status: int) -> None:
    """By Ctrl-C or Ctrl-D: the one ends a script, too."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *process_of(), "login", "localhost:1"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=cli.environment, cwd=PROJECT,
    )  # fmt: skip
    seen = b""
    while b"Username: " not in seen:
        seen += os.read(ours, 65536)
    os.write(ours, key)
    assert process.wait(60) == status
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize(("user", "password"), [("", b"x"), ("user", b""), ("us:er", b"x"), ("user", b"\xff")])
def test_login_with_what_can_be_no_name_or_password(cli: Images, user: str, password: bytes) -> None:
    refused(cli.call("login", "-u", user, "--password-stdin", "localhost:1", stdin=password), 2, "password")


def test_login_without_a_terminal_asks_nothing(cli: Images) -> None:
    refused(cli.call("login", "localhost:1"), 2, "from a non TTY device", "--password-stdin")
    refused(cli.call("login", "--password-stdin", "localhost:1", stdin=b"x"), 2, "must provide --username")


def test_search_has_dockers_columns(registry: RegistryServer, cli: Images, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, MADE)
    table = cli.run("search", f"{registry.host}/b").splitlines()
    assert table[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert table[1].split() == [f"{registry.host}/a/b", "0"]
    assert cli.run("search", "--format", "{{.Name}}", f"{registry.host}/") == f"{registry.host}/a/b"
    refused(cli.call("search", "--limit", "0", "x"), 2, "limit 0 is outside the range of [1, 100]")


def test_auth_file_that_is_named_and_not_there(cli: Images) -> None:
    for argv in (("image", "pull", "localhost:1/a"), ("search", "localhost:1/a")):
        refused(cli.call(*argv, "--authfile", "absent"), 1, "absent does not exist", "unionfs login --authfile")


def test_registry_that_is_not_there(registry: RegistryServer, cli: Images) -> None:
    registry.__exit__()
    refused(cli.call("image", "pull", f"{registry.host}/a/b:1"), 1, "cannot be reached", "check its name and port")
    refused(cli.call("search", f"{registry.host}/a"), 1, "cannot be reached")
    refused(cli.call("image", "pull", "UPPER"), 1, "must be lowercase", "try upper")


def test_terminal_sees_the_lines_too(registry: RegistryServer, cli: Images, tmp_path: Path) -> None:
    serve_image(registry, tmp_path, MADE)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*process_of(), "image", "pull", f"{registry.host}/a/b"],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**cli.environment, "TERM": "xterm"}, cwd=PROJECT,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:  # EIO: the terminal's other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert seen.count(b"Pull complete") == 2
    assert b"Status: Downloaded newer image" in seen


@pytest.mark.timeout(60)
def test_terminal_is_told_once_what_is_waited_for(cli: Images) -> None:
    cli.run("image", "import", "-", "a:1", stdin=MADE.layers[0])
    ours, theirs = pty.openpty()
    with locks.reading(os.fsencode(cli.store)):
        process = subprocess.Popen(
            [*process_of(), "image", "rm", "a:1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=cli.environment, cwd=PROJECT,
        )  # fmt: skip
        os.close(theirs)
        seen = os.read(ours, 65536)
    assert process.communicate(timeout=60)[0].startswith(b"Untagged: a:1\n") and process.returncode == 0
    os.close(ours)
    assert seen == b"waiting for another unionfs command that uses the store\r\n"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_pull_that_is_ended_leaves_the_store_as_it_was(
    registry: RegistryServer, cli: Images, tmp_path: Path, end: signal.Signals
) -> None:
    serve_image(registry, tmp_path, MADE)
    half, over = threading.Event(), threading.Event()
    with FaultyProxy(registry.host) as proxy:

        def plan(request: Request) -> Fault | None:
            if request.is_blob and len(proxy.requests) >= 5:
                half.set()
                return Fault(cut=20, stall=over)
            return None

        proxy.plan = plan
        process = subprocess.Popen(
            [*process_of(), "image", "pull", "-q", f"{proxy.host}/a/b"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environment, cwd=PROJECT,
        )  # fmt: skip
        try:
            assert half.wait(60)
            process.send_signal(end)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            over.set()
        said = b"error: interrupted\n" if end == signal.SIGINT else b""
        assert (process.returncode, out, err) == (-end, b"", said)
        proxy.plan = lambda request: None
        assert cli.names() == []
        cli.run("image", "pull", "-q", f"{proxy.host}/a/b")
    assert cli.run("image", "verify") == ""
    assert os.listdir(cli.store / ".unionfs/staging") == []


def test_only_what_speaks_to_registries_imports_the_client(cli: Images) -> None:
    code = "import sys; from cli.main import main; main(['image', 'ls']); sys.exit('httpx2' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.environment, cwd=PROJECT, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert program("search", "--help").status == 0
