"""Benchmarks: how long the work of a union mount takes, beside the kernel's overlayfs and the C engines, in one run.

One module per question in `workloads/`; `python -m benchmarks --help` says how to ask it. What the modules define:

    trees       deterministic input trees, built once per backing
    backing     the private tmpfs or ext4 image that layers, uppers and scratch files live on
    processes   child processes with a time limit; nothing else is ever timed
    peers       the engines: how each is mounted, with which version
    mounting    one live mount: made, proved to be the engine asked for, and always removed
    arena       what a workload sees: mount this, time that, check this
    report      samples to medians, ratios, JSON and markdown;   plot: the same as a picture
    run         the command line and the order of things

Invariants:

- The runner itself never touches a mounted tree: each access is a child process under a time limit, so a hanging
  engine hangs its client and not the run.
- Every workload checks what it did (counts, sizes, content of samples) before its time counts. A wrong result is
  reported as wrong and never as a time.
- No time is ever asserted: targets are printed beside the figures.
- The engines are programs here. Nothing is imported from `unionfs`, so that all are measured from the same side.
"""
