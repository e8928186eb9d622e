"""For tests: a trivial file system for transports to carry, and a server that mounts one in the foreground."""
