"""The figures: what is started, what it is given, what is read off."""

import collections
import json
import os
import pathlib
import random
import time
import uuid

from contestants import Service, amazon_roots, build, trust_file
from runtime_api import ENVIRONMENT, Failed, Function

SCALE = [1, 100, 1_000, 10_000, 50_000, 150_000]
CONCURRENCIES = [1, 2, 4, 8, 16, 32, 64]
LATENCY_MS = 50
# Assets whose ids fit into one SQS message of 1 MiB.
RECORD_ASSETS = 25_000
# Lambda's share of a core is the memory size over that of a whole one.
MEMORY_SIZES_MB = [128, 256, 512, 1_024, 1_769]
WHOLE_CORE_MB = 1_769
CPU_PERIOD_US = 20_000


class Job:
    """An SQS event: `sizes` are the numbers of assets of its records."""

    def __init__(self, sizes, one_project=False):
        dice = random.Random(repr((sizes, one_project)))

        def new_id():
            return str(uuid.UUID(int=dice.getrandbits(128), version=4))

        first = new_id()
        self.projects = [first if one_project else new_id() for _ in sizes]
        self.assets = sum(sizes)
        records = []
        for project, size in zip(self.projects, sizes):
            request = {"projectId": project, "assetIds": [new_id() for _ in range(size)]}
            records.append(
                {
                    "messageId": new_id(),
                    "receiptHandle": "AQEBbench",
                    "body": json.dumps(request, separators=(",", ":")),
                    "attributes": {
                        "ApproximateReceiveCount": "1",
                        "SentTimestamp": "1795407660000",
                        "SenderId": "AROAEXAMPLE:bench",
                        "ApproximateFirstReceiveTimestamp": "1795407660010",
                    },
                    "messageAttributes": {},
                    "md5OfBody": "00000000000000000000000000000000",
                    "eventSource": "aws:sqs",
                    "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:bench",
                    "awsRegion": "eu-west-1",
                }
            )
        self.event = json.dumps({"Records": records}, separators=(",", ":")).encode()


SMALL = Job([3])


def sized(assets):
    """A job of one project in as few records as SQS's limit allows."""
    whole, rest = divmod(assets, RECORD_ASSETS)
    return Job([RECORD_ASSETS] * whole + [rest] * (rest > 0), one_project=True)


class Bench:
    def __init__(self, service, rounds):
        self.service = service
        self.rounds = rounds
        self.contestants, self.skipped = build(service.authority)
        self.workers = [one for one in self.contestants.values() if one.does_the_job]

    def start(self, contestant, service=None, tls=True, cpu_group=None, **environment):
        service = service or self.service
        endpoint = service.https if tls else service.http
        service_environment = {"AWS_ENDPOINT_URL_IOTSITEWISE": endpoint}
        environment = {**ENVIRONMENT, **service_environment, **contestant.environment, **environment}
        return Function(contestant.command, environment, cpu_group)

    def work(self, function, job, service=None):
        """Has a job done; returns seconds until the answer, CPU seconds, calls."""
        service = service or self.service
        service.seed(job)
        before = function.cpu_seconds()
        response = function.invoke(job.event)
        cpu = function.cpu_seconds() - before
        return response.seconds, cpu, service.check(job, response.body)

    def cold_start(self, contestant, cpu_group=None):
        """Milliseconds from exec to the first /next and to the first answer."""
        self.service.seed(SMALL)
        with self.start(contestant, cpu_group=cpu_group) as function:
            response = function.invoke(SMALL.event)
            if contestant.does_the_job:
                self.service.check(SMALL, response.body)
            elif response.body != json.loads(SMALL.event):
                raise Failed(f"{contestant.name} answered {response.body}")
            return function.seconds_to_next * 1e3, response.seconds_since_exec * 1e3

    def cold(self, rounds=None, cpu_group=None):
        found = collections.defaultdict(lambda: {"next_ms": [], "answer_ms": []})
        for number in range(1 + (rounds or self.rounds)):
            for name, contestant in self.contestants.items():
                to_next, to_answer = self.cold_start(contestant, cpu_group)
                # The first round only warms up the machine.
                if number:
                    found[name]["next_ms"].append(to_next)
                    found[name]["answer_ms"].append(to_answer)
        return found

    def calls(self):
        """Calls for a thousand records of one asset each, of one project."""
        job = Job([1] * 1_000, one_project=True)
        found = {}
        for contestant in self.workers:
            with self.start(contestant, tls=False) as function:
                found[contestant.name] = {"calls": [self.work(function, job)[2]]}
        return found

    def wall(self):
        """Ten records of 250 assets for ten projects, each call taking its time."""
        job = Job([250] * 10)
        found = collections.defaultdict(lambda: {"ms": [], "calls": []})
        with Service(LATENCY_MS) as slow:
            functions = [(one.name, self.start(one, slow, tls=False)) for one in self.workers]
            for _, function in functions:
                self.work(function, SMALL, slow)
            for _ in range(max(1, self.rounds // 3)):
                for name, function in functions:
                    seconds, _, calls = self.work(function, job, slow)
                    found[name]["ms"].append(seconds * 1e3)
                    found[name]["calls"].append(calls)
            for _, function in functions:
                function.stop()
        return found

    def cpu(self):
        """CPU milliseconds for a thousand assets, warm, in events of 10,000."""
        job = sized(10_000)
        found = collections.defaultdict(lambda: {"tls_ms": [], "http_ms": []})
        for kind, tls in (("tls_ms", True), ("http_ms", False)):
            functions = [(one.name, self.start(one, tls=tls)) for one in self.workers]
            for number in range(2 + self.rounds + 5):
                for name, function in functions:
                    _, cpu, _ = self.work(function, job)
                    # Two rounds only warm up.
                    if number >= 2:
                        found[name][kind].append(cpu * 1e3 / (job.assets / 1_000))
            for _, function in functions:
                function.stop()
        return found

    def scale(self):
        """One event of each size, in a process of its own that is warm."""
        found = collections.defaultdict(
            lambda: collections.defaultdict(lambda: collections.defaultdict(list))
        )
        for assets in SCALE:
            job = sized(assets)
            for _ in range(max(1, self.rounds // 5)):
                for contestant in self.contestants.values():
                    of = found[contestant.name][str(assets)]
                    with self.start(contestant) as function:
                        time.sleep(0.05)
                        idle = function.memory("VmRSS")
                        of["idle_bytes"].append(idle)
                        if not contestant.does_the_job:
                            continue
                        self.work(function, SMALL)
                        seconds, cpu, calls = self.work(function, job)
                        of["event_bytes"].append(len(job.event))
                        of["peak_above_idle_bytes"].append(function.memory("VmHWM") - idle)
                        of["ms"].append(seconds * 1e3)
                        of["cpu_ms"].append(cpu * 1e3)
                        of["calls"].append(calls)
        return found

    def concurrency_sweep(self):
        """Our function over CALL_CONCURRENCY: ten records of 1,000 assets."""
        job = Job([1_000] * 10)
        found = collections.defaultdict(lambda: collections.defaultdict(list))
        ours = self.contestants["ours"]
        with Service(LATENCY_MS) as slow:
            trust = {"SSL_CERT_FILE": trust_file("slow", amazon_roots(), slow.authority)}
            for _ in range(max(1, self.rounds // 5)):
                for number in CONCURRENCIES:
                    of = found[str(number)]
                    environment = {**trust, "CALL_CONCURRENCY": str(number)}
                    with self.start(ours, slow, **environment) as function:
                        idle = function.memory("VmRSS")
                        self.work(function, SMALL, slow)
                        for key in ("first", "second"):
                            seconds, cpu, calls = self.work(function, job, slow)
                            of[f"{key}_ms"].append(seconds * 1e3)
                            of[f"{key}_cpu_ms"].append(cpu * 1e3)
                        of["calls"].append(calls)
                        of["peak_above_idle_bytes"].append(function.memory("VmHWM") - idle)
        return found

    def cpu_limit(self):
        """The cold start with the share of a core that Lambda gives a memory size."""
        found = {}
        for size in MEMORY_SIZES_MB:
            with CpuGroup(size / WHOLE_CORE_MB) as group:
                found[str(size)] = self.cold(max(1, self.rounds // 3), group)
        return found


class CpuGroup:
    """A control group with a share of a core; version 2 or 1, whichever is there
    and may be written to."""

    def __init__(self, share):
        quota = round(CPU_PERIOD_US * share)
        root = pathlib.Path("/sys/fs/cgroup")
        name = f"bench-{os.getpid()}"
        if (root / "cgroup.controllers").exists():
            (root / "cgroup.subtree_control").write_text("+cpu")
            self._path = root / name
            files = {"cpu.max": f"{quota} {CPU_PERIOD_US}"}
        else:
            self._path = root / "cpu" / name
            files = {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
        self._path.mkdir()
        for file, value in files.items():
            (self._path / file).write_text(value)

    def __enter__(self):
        return str(self._path)

    def __exit__(self, *_):
        self._path.rmdir()
