"""Containers: an image run by an OCI runtime (crun, else runc) on a root file system that is our mount.

    settings   what was asked for: values, without behaviour
    option_texts  what people write, made into settings; pure
    configuration  settings and an image's configuration -> the container's, that of an image made of it; pure
    spec       settings and an image's configuration -> the runtime's config.json; pure
    users      who a container runs as: USER and --user, by the root's own passwd and group
    root_path  paths in a root, resolved as the container would; directories made there
    volumes    their sources: made, or filled with what the image has
    cgroups    what control groups the machine has
    seccomp    the profile of docker and podman, reduced to one container's
    compiled_filters  such a filter as crun has compiled it, kept
    copying    files copied between a container's tree and the host's; tar_copying: by way of a tar
    network    private networks and published ports, by slirp4netns
    etc_files  a container's /etc/hosts, /etc/hostname and /etc/resolv.conf
    container  one container: its record, its directory, its states
    store      all of them, by ID and name
    changes    waiting for what becomes of one
    runtime    the OCI runtime as a program
    monitor    the process beside each running container: its output, its exit, its end
    logs       the log file of a container, written and read

What is ours is the root file system: the image's layers in place, and an upper that stays until the container is gone.
Namespaces, cgroups, terminals and signals are the runtime's. Mounts are made by who calls (`unionfs.api`).
"""
