"""The release bootstrap under AWS's own runtime interface emulator, which the
package aws-sam-cli contains. SiteWise is the simulator, and so is SQS in tests
that do not deploy the stack. Each runs as a process of its own."""

import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import processes
from events import as_text
from runtime_api import ENVIRONMENT

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REQUIREMENTS = pathlib.Path(__file__).with_name("requirements.txt")
PACKAGES = TARGET / "python"
# BOOTSTRAP names another build to test. It is a command line, since code for
# another processor needs a program that runs it.
BOOTSTRAP = shlex.split(os.environ.get("BOOTSTRAP", "")) or [
    str(TARGET / "release" / "sitewise-disassociator")
]
# The emulator gets the function's environment, which has no PATH to search.
BOOTSTRAP[0] = os.path.abspath(shutil.which(BOOTSTRAP[0]) or BOOTSTRAP[0])
SIMULATOR = TARGET / "debug" / "simulator"
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
EMULATOR = PACKAGES / "samcli" / "local" / "rapid" / f"aws-lambda-rie-{MACHINE}"

# More than any function timeout here, so that the emulator reports a timeout.
HTTP_TIMEOUT_SECONDS = 90


def install_requirements():
    """Installs the pinned packages, again whenever their list has changed, and
    puts them first on Python's path."""
    stamp = PACKAGES / "installed.txt"
    wanted = f"# Python {sys.version}\n{REQUIREMENTS.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(PACKAGES, ignore_errors=True)
        # The list is complete: nothing is left to resolve.
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            + [str(PACKAGES), "-r", str(REQUIREMENTS)],
            check=True,
        )
        stamp.write_text(wanted)
    sys.path.insert(0, str(PACKAGES))


def http(method, url, body=None):
    return json.loads(http_text(method, url, body))


def http_text(method, url, body=None):
    data = None if body is None else as_text(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_SECONDS) as response:
        return response.read().decode()


class SimulatedServices(unittest.TestCase):
    """Each test starts a simulator of its own, with these queues."""

    maxDiff = None
    DEAD_LETTERS = "dead-letters"
    WORK = "work"

    def start(self, command, environment):
        """Returns the process and the file with its output."""
        output = tempfile.TemporaryFile("w+")
        self.addCleanup(output.close)
        process = processes.start(command, environment, output)
        self.addCleanup(processes.stop, process)
        return process, output

    def start_simulator(self, *arguments):
        port = processes.free_port()
        queues = ("--queue", self.DEAD_LETTERS, "--queue", self.WORK)
        self.start([SIMULATOR, "--listen", f"127.0.0.1:{port}", *queues, *arguments], {})
        processes.wait_for_port(port)
        self.simulator = f"http://127.0.0.1:{port}"

    def queue_variables(self):
        """Returns the function's variables for the simulator's queues."""
        return {
            "DEAD_LETTER_QUEUE_URL": f"{self.simulator}/000000000000/{self.DEAD_LETTERS}",
            "WORK_QUEUE_URL": f"{self.simulator}/000000000000/{self.WORK}",
        }

    def seed(self, event):
        """Gives the simulator the projects and assets that an event names."""
        http("POST", f"{self.simulator}/_simulator/projects", event)

    def fault(self, fault):
        http("POST", f"{self.simulator}/_simulator/faults", fault)

    def clear_faults(self):
        http("DELETE", f"{self.simulator}/_simulator/faults")

    def projects(self):
        return http("GET", f"{self.simulator}/_simulator/projects")

    def queued(self, queue):
        """Returns the messages of one of the simulator's queues."""
        return http("GET", f"{self.simulator}/_simulator/queues/{queue}")

    def calls(self):
        """Returns the disassociations that were asked for; nothing that the
        function has sent may be invalid."""
        calls = http("GET", f"{self.simulator}/_simulator/calls")
        for call in calls:
            self.assertIsNone(call["invalid"])
        return [call for call in calls if call["operation"] == "Disassociate"]

    def assert_projects_are_empty(self):
        projects = self.projects()
        self.assertTrue(projects)
        self.assertEqual({project: [] for project in projects}, projects)


class EmulatedFunction(SimulatedServices):
    """Each test has an emulator and a cold start of its own."""

    def start_function(self, **variables):
        """Starts the emulator, with these variables beside those of Lambda. The
        bootstrap starts at the first invocation."""
        invoke_port, runtime_port = processes.free_ports(2)
        self.emulator, self.output = self.start(
            [
                EMULATOR,
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{invoke_port}",
                "--runtime-api-address",
                f"127.0.0.1:{runtime_port}",
                *BOOTSTRAP,
            ],
            {**ENVIRONMENT, **variables},
        )
        processes.wait_for_port(invoke_port)
        self.function = f"http://127.0.0.1:{invoke_port}/2015-03-31/functions/function/invocations"

    def log(self):
        """Returns the function's log lines, which the emulator passes on."""
        self.output.seek(0)
        lines = [line for line in self.output.read().split("\n") if line.startswith("{")]
        return [json.loads(line) for line in lines]

    def summaries(self):
        """Returns the lines that sum up an invocation each."""
        return [line for line in self.log() if line["message"] == "event processed"]

    def invoke(self, event):
        return http("POST", self.function, event)


def main():
    """Runs the program's tests; its last line says how many passed and failed."""
    result = unittest.main(verbosity=2, exit=False).result
    failed = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    print(f"{result.testsRun - len(failed)} passed, {len(failed)} failed")
    sys.exit(not result.wasSuccessful())
