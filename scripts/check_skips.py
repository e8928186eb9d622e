"""Fail if a test was skipped for something that can be installed.

usage: check_skips.py JUNIT.xml

A skip is accepted when its reason names a property of the machine, one of `ACCEPTED`; everything else (a missing
program, a missing package) is a gap in the set-up of scripts/test.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

ACCEPTED = re.compile(
    r"/dev/fuse|\broot\b|kernel|Linux \d|CAP_[A-Z_]+|capabilit|file ?system|namespace|not permitted|"
    r"free space|CPUs?\b|Python \d|macOS|BSD",
)


def refused_skips(report: str) -> list[str]:
    """The skipped tests, with their reasons, that should have run."""
    refused = []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is None or skipped.get("type") == "pytest.xfail":
            continue
        reason = skipped.get("message") or ""
        if not ACCEPTED.search(reason):
            refused.append(f"{case.get('classname')}::{case.get('name')}: {reason or 'no reason given'}")
    return refused


def main() -> int:
    refused = refused_skips(sys.argv[1])
    for line in refused:
        print(f"skipped, but could run here: {line}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
