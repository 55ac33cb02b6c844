"""What is measured, built from this tree, and what it is measured against: the
simulator, with TLS before it."""

import dataclasses
import functools
import io
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import zipfile

from processes import free_port, wait_for_port, wait_until
from runtime_api import Failed

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# What is only for the benchmark is built here, wherever the function is.
WORK = ROOT / "target" / "bench"

# How many calls our function may have in flight, unless a variable says
# otherwise: what template.yaml deploys.
CALL_CONCURRENCY = int(os.environ.get("CALL_CONCURRENCY") or 8)

# Those that the services' certificates lead to (Amazon Trust Services).
AMAZON_ROOTS = {
    "Amazon Root CA 1",
    "Amazon Root CA 2",
    "Amazon Root CA 3",
    "Amazon Root CA 4",
    "Starfield Services Root Certificate Authority - G2",
}
ROOT_STORES = [
    os.environ.get("SSL_CERT_FILE"),
    ssl.get_default_verify_paths().cafile,
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
]

@dataclasses.dataclass(frozen=True)
class Contestant:
    name: str
    what: str
    command: list
    # What would be deployed: names in the package, and the files.
    package: dict
    environment: dict = dataclasses.field(default_factory=dict)
    does_the_job: bool = True

    def sizes(self):
        """Bytes of the deployed package: unpacked, and as a ZIP archive."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in self.package.items():
                archive.write(file, name)
        return sum(file.stat().st_size for file in self.package.values()), packed.tell()


def build(authority):
    """Builds all that can be; returns the contestants, and of the others why
    not."""
    contestants, skipped = {}, {}
    for name, make in (
        ("ours", ours),
        ("minimal", minimal),
        ("plain", plain),
        ("python", python),
        ("node", node),
    ):
        try:
            contestants[name] = make(authority)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            if name in ("ours", "minimal"):
                raise
            skipped[name] = str(error)
    return contestants, skipped


def ours(authority):
    bootstrap = os.environ.get("BOOTSTRAP")
    if not bootstrap:
        cargo_build(ROOT, TARGET, "--bin", "sitewise-disassociator")
        bootstrap = TARGET / "release" / "sitewise-disassociator"
    bootstrap = pathlib.Path(bootstrap).resolve()
    return Contestant(
        "ours",
        "this function, trusting Amazon's five roots and the test authority",
        [str(bootstrap)],
        {"bootstrap": bootstrap},
        {
            "CALL_CONCURRENCY": str(CALL_CONCURRENCY),
            "SSL_CERT_FILE": trust_file("amazon", amazon_roots(), authority),
        },
    )


def minimal(_):
    bootstrap = crate("minimal")
    return Contestant(
        "minimal",
        "lambda_runtime, returns the event",
        [str(bootstrap)],
        {"bootstrap": bootstrap},
        does_the_job=False,
    )


def plain(authority):
    bootstrap = crate("plain")
    return Contestant(
        "plain",
        "Rust, AWS SDK with default features, the machine's roots, one call after another",
        [str(bootstrap)],
        {"bootstrap": bootstrap},
        {"SSL_CERT_FILE": trust_file("machine", machine_roots(), authority)},
    )


def python(authority):
    packages = WORK / "python"
    wanted = BENCH / "python" / "requirements.txt"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--disable-pip-version-check", "--root-user-action", "ignore"]
    install_once(packages, [wanted], [*install, "--target", packages, "-r", wanted])
    files = {
        str(file.relative_to(packages)): file
        for file in packages.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name != STAMP
    }
    bundle = (packages / "botocore" / "cacert.pem").read_text()
    return Contestant(
        "python",
        f"Python {sys.version.split()[0]}, boto3, Powertools' batch processor",
        [sys.executable, "-s", str(BENCH / "python" / "runtime.py")],
        {"handler.py": BENCH / "python" / "handler.py", **files},
        {
            "PYTHONPATH": str(packages),
            "AWS_CA_BUNDLE": trust_file("botocore", bundle, authority),
        },
    )


def node(authority):
    program, npm = shutil.which("node"), shutil.which("npm")
    if not program or not npm:
        raise FileNotFoundError("no node or no npm on the path")
    folder = WORK / "node"
    names = ("package.json", "package-lock.json", "handler.mjs")
    sources = [BENCH / "node" / name for name in names]
    bundle = folder / "handler.js"
    script = """
        cp "$@" .
        "$0" ci --ignore-scripts --no-audit --no-fund --silent
        node_modules/.bin/esbuild handler.mjs --bundle --minify --platform=node \\
            --target=node20 --format=cjs --outfile=handler.js --log-level=warning
    """
    install_once(folder, sources, ["/bin/sh", "-ec", script, npm, *sources])
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return Contestant(
        "node",
        f"Node {version.stdout.strip()}, SDK v3, bundled by esbuild",
        [program, str(BENCH / "node" / "runtime.js"), str(bundle)],
        {"handler.js": bundle},
        {"NODE_EXTRA_CA_CERTS": trust_file("node", "", authority)},
    )


def crate(name):
    cargo_build(BENCH / name, WORK)
    return WORK / "release" / f"bench-{name}"


def cargo_build(folder, target, *arguments):
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked", *arguments],
        cwd=folder,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        check=True,
    )


STAMP = "installed.txt"


def install_once(folder, sources, command):
    """Runs the command in the folder, and again whenever a source has changed."""
    stamp = folder / STAMP
    wanted = f"{sys.version}\n" + "".join(source.read_text() for source in sources)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([str(part) for part in command], cwd=folder, check=True)
    stamp.write_text(wanted)


def trust_file(name, certificates, authority):
    file = WORK / f"trust-{name}.pem"
    file.write_text(f"{certificates}\n{authority}")
    return str(file)


@functools.cache
def machine_roots():
    for file in ROOT_STORES:
        if file and pathlib.Path(file).exists():
            return pathlib.Path(file).read_text(encoding="utf-8")
    raise Failed(f"no root certificates at any of {ROOT_STORES}; set SSL_CERT_FILE")


def certificates(bundle):
    lines = r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    return re.findall(lines, bundle, re.DOTALL)


def amazon_roots():
    found = {}
    for certificate in certificates(machine_roots()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=certificate)
        for details in context.get_ca_certs():
            subject = dict(part[0] for part in details["subject"])
            found[subject.get("commonName")] = certificate
    missing = AMAZON_ROOTS - found.keys()
    if missing:
        raise Failed(f"the machine's root certificates lack {missing}")
    return "\n".join(found[name] for name in sorted(AMAZON_ROOTS))


class Service:
    """A simulated SiteWise, and TLS before it."""

    def __init__(self, latency_ms=0):
        cargo_build(ROOT, TARGET, "-p", "simulator")
        tls = crate("tls")
        self._processes = []
        self.latency_ms = latency_ms
        plain, encrypted = free_port(), free_port()
        self.http = f"http://127.0.0.1:{plain}"
        self.https = f"https://127.0.0.1:{encrypted}"
        simulator = [TARGET / "release" / "simulator", "--listen", f"127.0.0.1:{plain}"]
        self._start(*simulator, "--latency-ms", str(latency_ms))
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "authority.pem"
            self._start(tls, f"127.0.0.1:{encrypted}", f"127.0.0.1:{plain}", file)
            wait_until(lambda: file.exists() and len(certificates(file.read_text())) == 1)
            self.authority = file.read_text()
        wait_for_port(plain)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.kill()
            process.wait()

    def seed(self, job):
        """Gives the simulator the job's projects and assets, and no memory of
        earlier calls."""
        self._control("DELETE", "calls")
        self._control("POST", "projects", job.event)

    def check(self, job, answer):
        """Returns the number of calls; fails unless the job was done."""
        if answer != {"batchItemFailures": []}:
            raise Failed(f"answered {json.dumps(answer)[:2000]}")
        calls = self._control("GET", "calls")
        wrong = [call for call in calls if call["invalid"] or call["status"] != 200]
        if wrong:
            raise Failed(f"a call went wrong: {json.dumps(wrong[0])[:2000]}")
        projects = self._control("GET", "projects")
        left = [project for project in job.projects if projects[project]]
        if left:
            raise Failed(f"assets are left in {len(left)} projects")
        return len(calls)

    def _start(self, *command):
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self._processes.append(subprocess.Popen([str(part) for part in command], **quiet))

    def _control(self, method, path, body=None):
        request = urllib.request.Request(f"{self.http}/_simulator/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
