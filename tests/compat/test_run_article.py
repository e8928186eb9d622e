"""A first hour with containers, as articles on docker tell it: a web server, a database, a proxy, an image of one's own.

The images are made of this machine's Debian packages; networks are private ones, their ports on loopback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.registry_rig import RegistryServer
from tests.compat.run_rig import Machine, fetched
from tests.requirements import need, requires

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "runc", "slirp4netns", "tun", "busybox"),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def test_web_server_whose_page_is_fetched(machine: Machine) -> None:
    machine.busybox("busybox", 'CMD ["sh"]')
    (machine.directory / "www").mkdir()
    (machine.directory / "www/index.html").write_text("<h1>hello</h1>")
    machine.run(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "-v",
        "./www:/www:ro",
        "busybox",
        "httpd",
        "-f",
        "-h",
        "/www",
    )
    port = machine.port("web", "80/tcp")
    assert fetched(port) == "<h1>hello</h1>"
    assert f"127.0.0.1:{port}->80/tcp" in machine.run("ps")
    refused = machine.call("run", "--name", "second", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert refused.returncode == 125 and f"listen tcp4 127.0.0.1:{port}: bind: address already in use" in refused.stderr
    machine.run("stop", "-t", "0", "web")
    assert "Exited (137)" in machine.run("ps", "-a")
    machine.run("start", "web")
    assert fetched(machine.port("web", "80/tcp")) == "<h1>hello</h1>"
    machine.run("rm", "-f", "web", "second")
    assert machine.run("ps", "-aq") == ""


def test_database_that_is_talked_to(machine: Machine) -> None:
    need("redis-server")
    machine.busybox("busybox")
    machine.programs(
        "redis", "redis-server", "redis-cli", "ps", "bash",
        changes=['CMD ["redis-server","--save","","--dir","/data"]', "WORKDIR /data", "VOLUME /data", "EXPOSE 6379"],
    )  # fmt: skip
    machine.run("run", "-d", "--name", "redis", "redis")
    machine.until("logs", "redis", shows="Ready to accept connections")
    shown = machine.terminal(
        "exec", "-it", "redis", "redis-cli",
        typed=[(r"127\.0\.0\.1:6379> ", "set greeting hello\r"), (r"OK\s+\S*127\.0\.0\.1:6379> ", "get greeting\r"),
               (r'"hello"\s+\S*127\.0\.0\.1:6379> ', "exit\r")],
    )  # fmt: skip
    assert '"hello"' in shown
    assert machine.run("exec", "redis", "redis-cli", "get", "greeting") == "hello\n"
    processes = machine.run("exec", "redis", "ps", "-e", "-o", "pid,comm")
    assert re.search(r"^ +1 redis-server$", processes, re.M) and len(processes.splitlines()) == 3
    shown = machine.terminal("exec", "-it", "redis", "bash", typed=[(r"# ", "tty; exit 3\r")])
    assert "/dev/pts/" in shown
    machine.run("stop", "redis")
    assert "Exited (0)" in machine.run("ps", "-a", "--filter", "name=redis")
    machine.run("rm", "redis")


def test_web_server_in_the_foreground_with_logs(machine: Machine) -> None:
    need("nginx")
    machine.programs(
        "nginx", "nginx", changes=['CMD ["nginx","-g","daemon off;"]', "EXPOSE 80", "STOPSIGNAL SIGQUIT"],
        more=["/etc/nginx/mime.types"],
    )  # fmt: skip
    root = machine.directory / "files"
    for place in ("etc/nginx", "var/log/nginx", "var/lib/nginx", "run", "www"):
        (root / place).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/www:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\n")
    (root / "www/index.html").write_text("of nginx")
    (root / "etc/nginx/nginx.conf").write_text(
        "user www-data; pid /run/nginx.pid; error_log /dev/stderr notice; events {}\n"
        "http { access_log /dev/stdout; server { listen 80; root /www; } }\n"
    )
    volumes = [word for place in ("etc/passwd", "etc/group", "etc/nginx/nginx.conf", "www", "var/log/nginx",
                                  "var/lib/nginx", "run") for word in ("-v", f"./files/{place}:/{place}")]  # fmt: skip
    machine.run("run", "-d", "--name", "proxy", "-p", "127.0.0.1::80", *volumes, "nginx")
    assert fetched(machine.port("proxy", "80/tcp")) == "of nginx"
    said = machine.until("logs", "proxy", shows="GET / HTTP/1.0")
    assert '" 200 8 "' in said and "start worker process" in said
    machine.run("stop", "proxy")  # by the image's signal, SIGQUIT
    assert "Exited (0)" in machine.run("ps", "-a")
    assert "gracefully shutting down" in machine.call("logs", "proxy").stderr


def test_container_configured_by_its_environment(machine: Machine) -> None:
    machine.busybox("busybox", "ENV GREETING=hello NAME=nobody")
    (machine.directory / "env").write_text("# of a file\nNAME=file\nOTHER=1\n")
    command = ("busybox", "sh", "-c", 'echo "$GREETING $NAME $OTHER"')
    assert machine.run("run", "--rm", "--network", "none", *command) == "hello nobody \n"
    assert machine.run("run", "--rm", "--network", "none", "--env-file", "env", *command) == "hello file 1\n"
    told = machine.run("run", "--rm", "--network", "none", "--env-file", "env", "-e", "NAME=world", *command)
    assert told == "hello world 1\n"


def test_image_of_a_running_container_goes_round_by_a_registry(machine: Machine) -> None:
    """Committed while it serves, pushed, removed here, and run again by its name, which pulls it."""
    need("docker-registry")
    machine.busybox("busybox")
    with RegistryServer(machine.directory) as registry:
        machine.run("run", "-d", "--name", "site", "-p", "127.0.0.1::80", "busybox", "sh", "-c",
                    "mkdir -p /var/www && echo committed > /var/www/index.html && exec httpd -f -h /var/www")  # fmt: skip
        assert fetched(machine.port("site", "80/tcp")) == "committed\n"
        name = f"{registry.host}/site:v1"
        assert "A /var/www/index.html" in machine.run("diff", "site").splitlines()
        machine.run("commit", "-a", "me", "-m", "a page", "-c", 'CMD ["httpd","-f","-h","/var/www"]', "site", name)
        assert fetched(machine.port("site", "80/tcp")) == "committed\n"  # it went on
        machine.run("image", "push", "-q", name)
        machine.run("rm", "-f", "site")
        machine.run("image", "rm", name)
        machine.run("run", "-d", "--name", "again", "-p", "127.0.0.1::80", name)
        assert fetched(machine.port("again", "80/tcp")) == "committed\n"
        assert "a page" in machine.run("image", "history", name)
        machine.run("rm", "-f", "again")
