#!/usr/bin/env python3
"""Checks that a bootstrap lists every crate that is linked into it.

    python3 .ci/contents.py BOOTSTRAP TARGET

Its list, by cargo-auditable, may have more: optional crates are listed too.
"""

import json
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(bootstrap, target):
    packages = json.loads(output("rust-audit-info", bootstrap))["packages"]
    listed = {(package["name"], package["version"]) for package in packages}
    tree = output(
        *("cargo", "tree", "--locked", "--package", "sitewise-disassociator", "--target", target),
        *("--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"),
    )
    linked = set()
    for line in filter(None, tree.splitlines()):
        name, version = line.split()[:2]
        linked.add((name, version.removeprefix("v")))
    missing = sorted(linked - listed)
    print(f"{bootstrap}: {len(linked)} crates linked, {len(listed)} listed, missing: {missing}")
    return 1 if missing or not linked else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
