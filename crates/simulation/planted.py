#!/usr/bin/env python3
"""Tests the simulation: plants the bugs of planted/ in a copy of the function, one
at a time, and expects the simulation to find each.

    python3 crates/simulation/planted.py [BUG …]

A bug is a patch with its name. To add one: break the code, and store `git diff`. A
patch still applies after changes around its lines. One that does not apply, does
not compile or is not found is a failure.
"""

import os
import pathlib
import shutil
import subprocess
import sys

BUGS = pathlib.Path(__file__).resolve().with_name("planted")
ROOT = BUGS.parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
COPY = TARGET / "planted" / "source"
# Not where the function itself is built: Cargo takes the copy's crates for the
# workspace's own.
BUILD = TARGET / "planted" / "build"
SEEDS = 1000


def run(*command):
    environment = {**os.environ, "CARGO_TARGET_DIR": str(BUILD), "RUST_BACKTRACE": "0"}
    return subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True)


def problem_with(bug):
    """Returns why the simulation does not find a bug, or `None` where it does."""
    shutil.rmtree(COPY, ignore_errors=True)
    leave_out = shutil.ignore_patterns("target", ".*", "__pycache__")
    shutil.copytree(ROOT, COPY, ignore=leave_out)
    patch = run("patch", "--strip=1", "--ignore-whitespace", "--batch", f"--input={bug}")
    if patch.returncode:
        return f"does not apply\n{patch.stdout}{patch.stderr}"
    build = run("cargo", "build", "--quiet", "--locked", "--package", "simulation")
    if build.returncode:
        return f"does not compile\n{build.stderr}"
    simulation = run(BUILD / "debug" / "simulation", "--seeds", str(SEEDS), "--stop")
    found = [line for line in simulation.stdout.splitlines() if line.startswith("seed ")]
    if not simulation.returncode or not found:
        return f"is not found\n{simulation.stdout}{simulation.stderr}"
    seeds = simulation.stdout.splitlines()[-1].split()[0]
    print(f"{bug.stem}: found after {seeds} seed(s): {found[0]}", flush=True)
    return None


def main():
    bugs = sorted(BUGS.glob("*.patch"))
    names = sys.argv[1:] or [bug.stem for bug in bugs]
    if unknown := set(names) - {bug.stem for bug in bugs}:
        sys.exit(f"no such bug: {', '.join(sorted(unknown))}")
    problems = 0
    for bug in bugs:
        if bug.stem in names and (problem := problem_with(bug)):
            print(f"{bug.stem}: {problem}", flush=True)
            problems += 1
    print(f"{len(names) - problems} of {len(names)} planted bugs found")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
