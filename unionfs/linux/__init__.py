"""The system calls that Python's `os` does not offer, or not in the form needed. The only ctypes, fcntl and ioctl.

    syscalls    libc, errno to OSError, and what every other module here is made of
    path        openat2, renameat2, fchmodat2, linkat, utimensat
    xattr       extended attributes relative to a directory descriptor, never following
    handle      name_to_handle_at, open_by_handle_at, the UUID of a file system
    data        FICLONE, copy_file_range, fallocate, syncfs
    pipe        pipes for splice
    idmapped    idmapped mounts, recognised
    fileattr    inode flags, as chattr sets them
    statfs      the kind of a file system
    mount       mount, umount2, /proc/self/mountinfo
    namespace   unshare, setns
    fuse_dev    the ioctls of /dev/fuse
    process     file locks, the descriptor limit, memory, signals of a thread
    ptrace      threads of other processes stopped for a moment
    writers     who has files of a file system open for writing, or mapped

Rules that hold in all of them: names are raw bytes relative to a directory descriptor, links are never followed
unless the name says so, new descriptors are close-on-exec, every failure is an `OSError` with its errno (a NUL in a
name is a `ValueError`, as in `os`), EINTR is retried. Nothing here knows layers, FUSE messages or the union.

Written for 64-bit Linux (off_t, time_t and long of 64 bits).
"""
