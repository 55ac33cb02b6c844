"""The release bootstrap, emulated: what the test programs here share.

The Lambda side is AWS's own runtime interface emulator, as the package
aws-sam-cli carries it; SiteWise, and SQS where a test wants no other, is the
simulator. Each runs as a process of its own.
"""

import contextlib
import json
import os
import pathlib
import platform
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = ROOT / "tests" / "requirements.txt"
PACKAGES = TARGET / "python"
# Another build may be put to the test: a command line, so that it can name
# what runs another processor's code.
BOOTSTRAP = shlex.split(os.environ.get("BOOTSTRAP", "")) or [
    str(TARGET / "release" / "sitewise-disassociator")
]
# The emulator gets the function's environment, which has no PATH to search.
BOOTSTRAP[0] = shutil.which(BOOTSTRAP[0]) or BOOTSTRAP[0]
SIMULATOR = TARGET / "debug" / "simulator"
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
EMULATOR = PACKAGES / "samcli" / "local" / "rapid" / f"aws-lambda-rie-{MACHINE}"

# More than any function timeout here, so that a timeout is the emulator's to tell.
PATIENCE_SECONDS = 90


def install_requirements():
    """Installs the pinned packages, and again whenever their list has changed;
    what is imported from now on is found there first."""
    stamp = PACKAGES / "installed.txt"
    wanted = f"# Python {sys.version}\n{REQUIREMENTS.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(PACKAGES, ignore_errors=True)
        # The list is complete, so nothing is left to resolve.
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            + [str(PACKAGES), "-r", str(REQUIREMENTS)],
            check=True,
        )
        stamp.write_text(wanted)
    sys.path.insert(0, str(PACKAGES))


def free_ports(count):
    """So many free ports below those that the kernel gives to outgoing
    connections: one of these could take it before the process that it is meant
    for."""
    with contextlib.ExitStack() as held:
        ports = []
        while len(ports) < count:
            listener = held.enter_context(socket.socket())
            port = random.randrange(20_000, 32_000)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def free_port():
    [port] = free_ports(1)
    return port


def wait_for(port, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def start(command, environment, output):
    return subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def http(method, url, body=None):
    return json.loads(http_text(method, url, body))


def http_text(method, url, body=None):
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data=data, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return answer.read().decode()


class EmulatedFunction(unittest.TestCase):
    """Each test has a simulator, an emulator and a cold start of its own."""

    maxDiff = None

    def start(self, command, environment):
        output = tempfile.TemporaryFile("w+")
        self.addCleanup(output.close)
        # The one started last, for who wants to do something to it.
        self.process = start(command, environment, output)
        self.addCleanup(stop, self.process)
        return output

    def start_simulator(self, *arguments):
        port = free_port()
        self.start([SIMULATOR, "--listen", f"127.0.0.1:{port}", *arguments], {})
        wait_for(port)
        self.simulator = f"http://127.0.0.1:{port}"

    def start_function(self, environment):
        runtime, api = free_ports(2)
        self.output = self.start(
            [
                EMULATOR,
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{runtime}",
                "--runtime-api-address",
                f"127.0.0.1:{api}",
                *BOOTSTRAP,
            ],
            environment,
        )
        wait_for(runtime)
        self.function = f"http://127.0.0.1:{runtime}/2015-03-31/functions/function/invocations"

    def log(self):
        """The function's log lines, which the emulator passes on."""
        self.output.seek(0)
        lines = [line for line in self.output.read().split("\n") if line.startswith("{")]
        return [json.loads(line) for line in lines]

    def invoke(self, event):
        return http("POST", self.function, event)

    def seed(self, event):
        """Gives the simulator the projects and assets that an event names."""
        http("POST", f"{self.simulator}/_simulator/projects", event)

    def fault(self, spec):
        http("POST", f"{self.simulator}/_simulator/faults", spec)

    def clear_faults(self):
        http("DELETE", f"{self.simulator}/_simulator/faults")

    def projects(self):
        return http("GET", f"{self.simulator}/_simulator/projects")

    def calls(self):
        calls = http("GET", f"{self.simulator}/_simulator/calls")
        for call in calls:
            self.assertIsNone(call["invalid"])
        return [call for call in calls if call["operation"] == "Disassociate"]

    def assert_projects_are_empty(self):
        projects = self.projects()
        self.assertTrue(projects)
        self.assertEqual({project: [] for project in projects}, projects)


def main():
    """Runs the program's tests; its last line says how many passed and failed."""
    result = unittest.main(verbosity=2, exit=False).result
    failed = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    print(f"{result.testsRun - len(failed)} passed, {len(failed)} failed")
    sys.exit(not result.wasSuccessful())
