"""A first hour with containers, as articles on docker tell it: web servers, a database, an image of one's own.

The images are made of this machine's Debian packages; networks are private ones, their ports on loopback.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.compat.registry_rig import RegistryServer
from tests.compat.run_rig import Box, Typist, box, filled
from tests.compat.run_services import fetched, free_range, page, port, program_image
from tests.requirements import need, requires

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_fuse,
    pytest.mark.peer,
    requires("root", "fuse", "runc", "slirp4netns", "tun", "busybox"),
]

__all__ = ["box", "filled"]  # fixtures

ON_LOOPBACK = ("-p", "127.0.0.1::80")


def test_web_server_whose_page_is_fetched(box: Box, tmp_path: Path) -> None:
    www = page(tmp_path / "www", "<h1>hello</h1>")
    box.run("run", "-d", "--name", "web", *ON_LOOPBACK, "-v", f"{www}:/www:ro", "box", "httpd", "-f", "-h", "/www")
    number = port(box, "web")
    assert fetched(number) == "<h1>hello</h1>"
    assert f"127.0.0.1:{number}->80/tcp" in box.run("ps")
    second = box.call("run", "--name", "second", "-p", f"127.0.0.1:{number}:80", "box", "true")
    assert second.status == 125
    assert f"listen tcp4 127.0.0.1:{number}: bind: address already in use".encode() in second.err
    box.run("stop", "-t", "0", "web")
    assert "Exited (137)" in box.run("ps", "-a", "--filter", "name=web")
    box.run("start", "web")
    assert fetched(port(box, "web")) == "<h1>hello</h1>"
    box.run("rm", "-f", "web", "second")
    assert box.run("ps", "-aq") == ""


def test_servers_that_share_a_range_of_ports(box: Box, tmp_path: Path) -> None:
    first = free_range(2)
    both = f"{first}-{first + 1}"
    run = ("run", "-d", "-p", f"127.0.0.1:{both}:80", "-v", f"{page(tmp_path / 'www', 'shared')}:/www:ro")
    serve = ("box", "httpd", "-f", "-h", "/www")
    with box.process(*run, "--name", "one", *serve) as one, box.process(*run, "--name", "two", *serve) as other:
        said = [(each.communicate(timeout=60)[1], each.returncode) for each in (one, other)]
    assert said == [(b"", 0), (b"", 0)]
    numbers = [port(box, name) for name in ("one", "two")]
    assert sorted(numbers) == [first, first + 1]
    assert [fetched(number) for number in numbers] == ["shared", "shared"]
    assert box.run("ps", "--format", "{{.Ports}}", "-f", "name=one") == f"127.0.0.1:{numbers[0]}->80/tcp"
    assert box.inspect("one")["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": both}]}
    refused = box.call(*run, "--name", "three", *serve)
    assert refused.status == 125 and f"listen tcp4 127.0.0.1:{both}: bind: address already in use" in refused.errors[0]
    assert "hint: choose another range, or one that is free with: -p 80" in refused.err.decode()
    box.run("stop", "-t", "0", "one")
    box.run("start", "one")
    assert port(box, "one") == numbers[0]


def test_database_that_is_talked_to(box: Box) -> None:
    need("redis-server")
    changes = ['CMD ["redis-server","--save","","--dir","/data"]', "WORKDIR /data", "VOLUME /data", "EXPOSE 6379"]
    program_image(box, "redis", "redis-server", "redis-cli", "ps", changes=changes, more=["/bin/busybox"])
    box.run("run", "-d", "--name", "redis", "redis")
    box.until_said("redis", "Ready to accept connections")
    prompt = "127.0.0.1:6379> "
    with Typist(box, "exec", "-it", "redis", "redis-cli") as client:
        client.sees(prompt)
        client.types("set greeting hello\r")
        client.sees("OK\r\n")
        client.sees(prompt)
        client.types("get greeting\r")
        client.sees('"hello"\r\n')
        client.sees(prompt)
        client.types("exit\r")
        assert client.end() == 0
    assert box.run("exec", "redis", "redis-cli", "get", "greeting") == "hello"
    processes = box.run("exec", "redis", "ps", "-e", "-o", "pid,comm")
    assert re.search(r"^ +1 redis-server$", processes, re.M) and len(processes.splitlines()) == 3
    box.run("stop", "redis")
    assert "Exited (0)" in box.run("ps", "-a")
    box.run("rm", "redis")


NGINX = """
user www-data; pid /run/nginx.pid; error_log /dev/stderr notice; events {}
http { access_log /dev/stdout; server { listen 80; root /www; } }
"""


def test_web_server_in_the_foreground_with_logs(box: Box, tmp_path: Path) -> None:
    need("nginx")
    changes = ['CMD ["nginx","-g","daemon off;"]', "EXPOSE 80", "STOPSIGNAL SIGQUIT"]
    program_image(box, "nginx", "nginx", changes=changes)
    for place in ("etc/nginx", "var/log/nginx", "var/lib/nginx", "run"):
        (tmp_path / place).mkdir(parents=True)
    page(tmp_path / "www", "of nginx")
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/www:/bin/false\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nwww-data:x:33:\n")
    (tmp_path / "etc/nginx/nginx.conf").write_text(NGINX)
    places = ("etc/passwd", "etc/group", "etc/nginx/nginx.conf", "www", "var/log/nginx", "var/lib/nginx", "run")
    volumes = [word for place in places for word in ("-v", f"{tmp_path}/{place}:/{place}")]
    box.run("run", "-d", "--name", "proxy", *ON_LOOPBACK, *volumes, "nginx")
    assert fetched(port(box, "proxy")) == "of nginx"
    box.until_said("proxy", '"GET / HTTP/1.0" 200 8 ')
    box.run("stop", "proxy")  # by the image's signal, SIGQUIT
    assert "Exited (0)" in box.run("ps", "-a")
    assert b"gracefully shutting down" in box.call("logs", "proxy").err


def test_container_configured_by_its_environment(box: Box, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# of a file\nFROM=file\nOTHER=1\n")
    command = ("box", "sh", "-c", 'echo "$FROM $NAME $OTHER"')
    run = ("run", "--rm", "--network", "none")
    assert box.run(*run, *command) == "image  "
    assert box.run(*run, "--env-file", file, *command) == "file  1"
    assert box.run(*run, "--env-file", file, "-e", "NAME=world", "-e", "FROM=me", *command) == "me world 1"


def test_image_of_a_running_container_goes_round_by_a_registry(box: Box, tmp_path: Path) -> None:
    """Committed while it serves, pushed, removed here, and run again by its name, which pulls it."""
    need("docker-registry")
    serve = "mkdir -p /srv/www && echo committed > /srv/www/index.html && exec httpd -f -h /srv/www"
    with RegistryServer(tmp_path) as registry:
        name = f"{registry.host}/site:v1"
        box.run("run", "-d", "--name", "site", *ON_LOOPBACK, "box", "sh", "-c", serve)
        assert fetched(port(box, "site")) == "committed\n"
        assert box.run("diff", "site").splitlines()[-3:] == ["C /srv", "A /srv/www", "A /srv/www/index.html"]
        box.run("commit", "-p", "-a", "me", "-m", "a page", "-c", 'CMD ["httpd","-f","-h","/srv/www"]', "site", name)
        assert fetched(port(box, "site")) == "committed\n"  # it goes on
        box.run("image", "push", "-q", name)
        box.run("rm", "-f", "site")
        box.run("image", "rm", name)
        again = box.call("run", "-d", "--name", "again", *ON_LOOPBACK, name)
        assert again.status == 0 and f"Unable to find image '{name}' locally".encode() in again.err
        assert fetched(port(box, "again")) == "committed\n"
        assert "a page" in box.run("image", "history", name)
        assert box.inspect("again")["Config"]["Cmd"] == ["httpd", "-f", "-h", "/srv/www"]
        box.run("rm", "-f", "again")
