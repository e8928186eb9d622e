"""What the manual pages say that no command says of itself. `code` is set bold."""

from __future__ import annotations

from typing import NamedTuple

#: Of the last change that somebody who reads the pages would notice.
DATE = "2026-11-26"


class Page(NamedTuple):
    name: str
    summary: str
    about: str
    see: tuple[tuple[str, int], ...]


UNIONFS = Page(
    "unionfs",
    "stack read-only layers under a writable upper, mount the result, commit the changes as an image",
    """
A union shows several directories, its layers, as one tree. A name is looked up from the top: the first layer that has
it wins, and directories are merged. Layers are never written to. All changes go to one more directory above them, the
upper: a file of a layer that is written to is first copied there (copy-up), and a name that is removed is hidden by a
mark (whiteout).

A layer is a directory, a layer tar (compressed or not), or an image, which stands for all its layers: one of the
store, by name or ID, or `oci:DIR[:TAG]`, `oci-archive:FILE[:NAME]` or `docker-archive:FILE[:NAME]`. What exists as a
path is that path.

Uppers are those of the kernel's overlayfs, which can mount them afterwards, and the other way round. Mounts are FUSE:
they need `/dev/fuse`, and, as an ordinary user, `fusermount3`(1).

Data goes to standard output, all else to standard error. A failure is one line `error: what` and, where there is
something to do, one line `hint: what to do`. To a terminal control characters in names are written as `\\xNN`.
""",
    (("unionfs-image", 1), ("unionfs-mount", 8), ("fusermount3", 1), ("mount", 8), ("podman", 1), ("skopeo", 1)),
)
IMAGE = Page(
    "unionfs-image",
    "images in a store: list, name, pull, push, save, load and look into them",
    """
The store is an OCI image layout, which skopeo, umoci and podman read in place. Options and output are docker's. An
image that a mount or a container uses, or that changes are kept of, is not removed.

Registries are spoken to by `pull` and `push` alone. A bare name is docker.io's. Credentials are docker's and podman's
(`unionfs login`), certificates those in `certs.d`, proxies the environment's; localhost may speak HTTP, another host
only with `--insecure`.
""",
    (("unionfs", 1), ("skopeo", 1), ("umoci", 1), ("containers-auth.json", 5), ("containers-certs.d", 5)),
)
MOUNT_PROGRAM = Page(
    "unionfs-mount",
    "mount program of unionfs, for mount(8), fstab and containers",
    """
Mounts layers as one tree, with the arguments of fuse-overlayfs and of `mount.fuse3`(8), and returns once the mount
can be used. `mount -t fuse.unionfs-mount` and lines of `/etc/fstab` call it through `mount.fuse3`, which looks for it
in `/usr/local/bin` and `/usr/bin`; podman and buildah as the `mount_program` of their storage. People have `unionfs
mount`, see `unionfs`(1).

SIGTERM to the daemon unmounts.
""",
    (("unionfs", 1), ("mount", 8), ("mount.fuse3", 8), ("fstab", 5), ("containers-storage.conf", 5)),
)

EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed; standard error says why. Also: `check` and `image verify` found something, `doctor` a problem."),
    ("2", "The command line is wrong."),
    ("130", "Ctrl-C; a shell is told that SIGINT has ended the command, and so ends a script too."),
    ("125, 126, 127, 128+N", "Of `run` and `exec`: not run, not executable, not there, ended by signal N."),
)

EXIT_STATUS_OF_THE_PROGRAM = (
    ("0", "The mount can be used."),
    ("1", "There is none; standard error says why."),
)

ENVIRONMENT = (
    ("UNIONFS_STORE", "The image store. `--store` takes precedence."),
    ("UNIONFS_CACHE", "Where layers are made ready to be read. It may be removed at any time."),
    ("UNIONFS_RUNTIME_DIR", "Where live mounts are written down, with the sockets of their daemons."),
    ("UNIONFS_RUNTIME", "The OCI runtime that runs containers. Default: crun, else runc."),
    ("UNIONFS_LAYER_LIMIT", "Bytes that a compressed layer may come to before it is taken for a decompression bomb."),
    ("SOURCE_DATE_EPOCH", "Seconds since the epoch: the latest time stamp that is written to a layer or image."),
    ("REGISTRY_AUTH_FILE", "The file with credentials for registries, unless `--authfile` names one."),
    ("DOCKER_CONFIG", "The directory of docker's `config.json`. Default: `~/.docker`."),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "How registries are reached."),
    ("TMPDIR", "Where the changes of `--ephemeral` mounts are."),
    ("XDG_DATA_HOME, XDG_CACHE_HOME, XDG_CONFIG_HOME, XDG_RUNTIME_DIR", "Where the defaults of these files are."),
    ("FUSE_LIBRARY_PATH", "The libfuse 2 of `--transport fusepy`."),
    ("NO_COLOR", "No colours, on a terminal either."),
)

ENVIRONMENT_OF_THE_PROGRAM = frozenset(
    ("UNIONFS_STORE", "UNIONFS_CACHE", "UNIONFS_RUNTIME_DIR", "UNIONFS_LAYER_LIMIT", "FUSE_LIBRARY_PATH")
)

FILES = (
    (
        "~/.local/share/unionfs/images",
        "The image store, an OCI image layout. `mounts/NAME` in it has the changes kept.",
    ),
    ("~/.cache/unionfs", "Layers made ready to be read."),
    ("/run/unionfs, $XDG_RUNTIME_DIR/unionfs, /tmp/unionfs-UID", "Live mounts: of root, of a user, of one without."),
    ("UPPER.work", "The default work directory of an upper, as the kernel's overlayfs needs one."),
    ("~/.docker/config.json, $XDG_RUNTIME_DIR/containers/auth.json", "Credentials for registries."),
    ("~/.config/containers/certs.d, /etc/containers/certs.d, /etc/docker/certs.d", "Certificates of registries."),
    ("/etc/fuse.conf", "With the line `user_allow_other`, users' mounts may be for others too."),
)

EXAMPLES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "unionfs": (
        (
            "Two directories as one, changed, and the changes as a layer:",
            (
                "unionfs mount -l settings -l base -u changes tree",
                "rm tree/etc/motd",
                "unionfs which tree/etc/motd",
                "unionfs diff tree",
                "unionfs commit tree -o layer.tar.gz",
                "unionfs umount tree",
            ),
        ),
        (
            "An image, changed, as another one, which docker loads:",
            (
                "unionfs mount --image busybox tree",
                "unionfs commit tree busybox:v2 -m 'a page' -c 'CMD [\"httpd\",\"-f\"]'",
                "unionfs umount tree",
                "unionfs image save busybox:v2 | docker load",
            ),
        ),
    ),
    "unionfs-image": (
        (
            "A root file system becomes an image, and goes to a registry:",
            (
                "tar -C root -c . | unionfs image import - localhost:5000/site:v1",
                "unionfs image push localhost:5000/site:v1",
            ),
        ),
        ("What other tools say of the store:", ("skopeo inspect oci:$HOME/.local/share/unionfs/images:site:v1",)),
    ),
    "unionfs-mount": (
        (
            "By hand, and as a line of fstab(5):",
            (
                "unionfs-mount -o lowerdir=/srv/base,upperdir=/srv/changes,workdir=/srv/work /srv/tree",
                "unionfs /srv/tree fuse.unionfs-mount lowerdir=/srv/base,upperdir=/srv/changes,workdir=/srv/work 0 0",
            ),
        ),
        ("For one command of podman:", ("podman --storage-opt overlay.mount_program=/usr/local/bin/unionfs-mount …",)),
    ),
}
