#!/usr/bin/env python3
"""Tries the release bootstrap hard: kills, deadlines, frozen processes, an outage.

Everything else is as in `deployed`: AWS's runtime interface emulator, moto's
SQS with the deployed queues, and the simulator's SiteWise. The emulator
survives the death of its runtime and starts it cold at the next invocation, as
Lambda does; only for deadlines, which it has in whole seconds, the Runtime API
is played by `sandbox`.

    tests/endurance.py            all of it, about nine minutes
    tests/endurance.py --short    less of the same, about a minute and a half

The seed decides what is sent and when a process is killed. It is printed, and
--seed repeats it, as far as a race can be repeated.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import signal
import statistics
import sys
import threading
import time
import unittest
import urllib.error

import emulated
from emulated import http_text

# Before anything is imported that it installs.
emulated.install_requirements()

import deployed  # noqa: E402
from deployed import assets, project  # noqa: E402
from proxy import ENDS, Proxy  # noqa: E402
from sandbox import Sandbox  # noqa: E402
from stack import Stack  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Sizes:
    messages: int
    # Inside an invocation.
    kills: int
    # Of a second run, where SiteWise refuses an asset that is gone already.
    refused_messages: int
    refused_kills: int
    seconds_left: tuple
    cycles: int
    outage_seconds: int


FULL = Sizes(
    messages=500,
    kills=200,
    refused_messages=100,
    refused_kills=50,
    seconds_left=(0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1, 2, 3, 5, 10, 30, 60),
    cycles=1000,
    outage_seconds=60,
)
SHORT = Sizes(
    messages=60,
    kills=20,
    refused_messages=20,
    refused_kills=8,
    seconds_left=(0.1, 0.3, 0.5, 1, 3),
    cycles=100,
    outage_seconds=12,
)
SIZES = FULL
SEED = random.randrange(2**32)

# As src/handler.rs and src/dispatch.rs have them.
ANSWER_RESERVE = 0.1
LEAST_RESERVE = 0.3
SHORTEST_CALL = 0.4

BATCH_SIZE = 5
LATENCY_MS = 40
FAN_OUT_ASSETS = 150

FIGURES = []


def figure(text):
    FIGURES.append(text)


def setUpModule():
    deployed.setUpModule()
    print(f"seed {SEED}", file=sys.stderr)


def tearDownModule():
    print(f"\nseed {SEED}", *FIGURES, sep="\n  ", flush=True)


# ---------------------------------------------------------------- what is sent


@dataclasses.dataclass(frozen=True)
class Message:
    """What was sent, and what is to become of it."""

    body: str
    # None: no request, which becomes a dead letter as it came.
    project: str = None
    assets: tuple = ()
    bad_ids: tuple = ()
    # No such project: each of its assets is to be named in a dead letter.
    is_refused: bool = False


class Sender:
    """Makes messages of all kinds, of assets that no other message has."""

    PROJECTS = 12
    ABSENT = project(99)

    def __init__(self, dice):
        self._dice = dice
        self._next_asset = 1
        self.seeds = collections.defaultdict(list)
        # In the same projects, and never asked for.
        self.bystanders = {}
        # What SiteWise never lets go.
        self.doomed = set()
        for number in range(1, self.PROJECTS + 1):
            self.bystanders[project(number)] = set(self._assets(20))
        self.bystanders[project(98)] = set(self._assets(20))

    def _assets(self, count):
        first = self._next_asset
        self._next_asset += count
        return assets(*range(first, first + count))

    def messages(self, count):
        made = [self._message(number) for number in range(count)]
        # Somebody asks twice.
        for number in range(10, count, 40):
            made[number] = made[number - 7]
        self._dice.shuffle(made)
        return made

    def _message(self, number):
        if number % 25 == 3:
            texts = ["decommission line 3", '{"assetIds": []}', "[]", '{"projectId": "..", "n": 1}']
            return Message(f"{self._dice.choice(texts)} {self._next_number()}".strip())
        size = self._dice.choice([1, 1, 2, 5, 20, 99, 100, 101, 150, 151, 200, 250])
        wanted = self._assets(size)
        if number % 50 == 5:
            body = {"projectId": self.ABSENT, "assetIds": wanted}
            return Message(json.dumps(body), self.ABSENT, tuple(wanted), is_refused=True)
        name = project(self._dice.randint(1, self.PROJECTS))
        self.seeds[name] += wanted
        if number % 30 == 7:
            self.doomed.add(self._dice.choice(wanted))
        bad_ids = []
        if number % 20 == 11:
            bad_ids = [f"PUMP-{self._next_number()}", f"../{self._next_number()}"]
        ids = [*wanted, *bad_ids]
        self._dice.shuffle(ids)
        body = {"projectId": name, "assetIds": ids}
        if number % 6 == 1:
            body["clientToken"] = f"{self._dice.getrandbits(160):040x}"
        return Message(json.dumps(body), name, tuple(wanted), tuple(bad_ids))

    def _next_number(self):
        self._next_asset += 1
        return self._next_asset


class Letters:
    """Dead letters, given as bodies and attributes, by what they are about."""

    def __init__(self, letters):
        # Assets by project, and by the message that they were asked for in.
        self.of_project = collections.defaultdict(set)
        self.of_message = collections.defaultdict(set)
        # What could not be read: its message, and the body as it came.
        self.as_they_came = set()
        for body, attributes in letters:
            source = attributes["SourceMessageId"]
            if '"deadLetteredAt"' in body:
                letter = json.loads(body)
                self.of_project[letter["projectId"]] |= set(letter["assetIds"])
                self.of_message[source] |= set(letter["assetIds"])
            else:
                self.as_they_came.add((source, body))


def wrongs(messages, left, letters, bystanders):
    """All that has become of messages, by their ids, against the contract:
    every asset is out of its project or named in a dead letter, and no dead
    letter names one that is out of it.

    `left` are the projects with their assets, `bystanders` what of it nobody
    asked for."""
    left = {name: set(ids) for name, ids in left.items()}
    letters = Letters(letters)
    asked, bad_ids = collections.defaultdict(set), collections.defaultdict(set)
    for key, message in messages.items():
        asked[message.project] |= set(message.assets)
        bad_ids[message.project] |= set(message.bad_ids)
        if message.project is None and (key, message.body) not in letters.as_they_came:
            yield f"{key}: lost: {message.body}"
        for asset in set(message.bad_ids) - letters.of_message[key]:
            yield f"{key}: lost: {asset}"
        is_in = set(message.assets)
        if not message.is_refused:
            is_in &= left.get(message.project, set())
        for asset in is_in - letters.of_project[message.project]:
            yield f"{key}: {asset} is in {message.project}, and in no dead letter"

    for name, named in letters.of_project.items():
        for asset in named - asked[name] - bad_ids[name]:
            yield f"a dead letter names {asset} of {name}: nobody asked"
        if name in left:
            for asset in (named & asked[name]) - left[name]:
                yield f"a dead letter names {asset} of {name}, which is gone from it"
    known = {(key, message.body) for key, message in messages.items() if not message.project}
    for source, body in letters.as_they_came - known:
        yield f"{source}: a dead letter of nothing that was sent so: {body}"
    for name, ids in bystanders.items():
        for asset in ids - left[name]:
            yield f"{asset} is gone from {name}: nobody asked"


class TheCheck(unittest.TestCase):
    """What it lets pass would prove nothing."""

    def setUp(self):
        self.messages = {
            "m-1": Message("", project(1), tuple(assets(1, 2)), ("PUMP-7",)),
            "m-2": Message("no request"),
            "m-3": Message("", project(9), tuple(assets(9)), is_refused=True),
        }
        self.left = {project(1): [*assets(2), *assets(5)]}
        self.letters = [
            self.letter("m-1", project(1), *assets(2)),
            self.letter("m-1", project(1), "PUMP-7"),
            ("no request", {"SourceMessageId": "m-2"}),
            self.letter("m-3", project(9), *assets(9)),
        ]
        self.bystanders = {project(1): set(assets(5))}

    def letter(self, source, name, *ids):
        body = {"projectId": name, "assetIds": ids, "deadLetteredAt": ""}
        return json.dumps(body), {"SourceMessageId": source}

    def wrongs(self):
        return list(wrongs(self.messages, self.left, self.letters, self.bystanders))

    def test_it_is_silent_when_all_is_well(self):
        self.assertEqual(self.wrongs(), [])
        self.letters *= 2
        self.assertEqual(self.wrongs(), [])

    def test_each_letter_is_needed(self):
        letters = self.letters
        for at, expected in enumerate(["in no dead letter", "lost: PUMP-7", "lost: no", "in no"]):
            self.letters = letters[:at] + letters[at + 1 :]
            [wrong] = self.wrongs()
            self.assertIn(expected, wrong)

    def test_an_asset_left_behind_is_told(self):
        self.left[project(1)] += assets(1)
        [wrong] = self.wrongs()
        self.assertIn(f"m-1: {assets(1)[0]} is in", wrong)

    def test_what_nobody_asked_for_is_told(self):
        self.left[project(1)].remove(assets(5)[0])
        self.letters.append(self.letter("m-1", project(1), *assets(6)))
        self.letters.append(("other", {"SourceMessageId": "m-2"}))
        self.assertEqual(len(self.wrongs()), 3)

    def test_a_letter_of_what_is_gone_is_told(self):
        self.letters.append(self.letter("m-1", project(1), *assets(1)))
        [wrong] = self.wrongs()
        self.assertIn("gone from it", wrong)


# -------------------------------------------------------------------- the parts


class Bootstrap(deployed.Deployed):
    """The deployed stack in moto, SiteWise behind a proxy, and the runtime's own
    process at hand."""

    def setUp(self):
        emulated.http("POST", f"{self.moto}/moto-api/reset")
        self.stack = Stack(self.moto, deployed.STACK_NAME, **self.parameters)
        self.sqs = self.stack.client("sqs")
        self.work = self.stack.outputs["WorkQueueUrl"]
        self.dead_letters = self.stack.outputs["DeadLetterQueueUrl"]
        self.dice = random.Random(f"{SEED} {self.id()}")

    def tearDown(self):
        """Nothing is recorded here that could be read: the simulator judges."""

    def start_simulator(self, *arguments, reply_delay=0.0):
        super().start_simulator("--seed", str(self.dice.getrandbits(32)), *arguments)
        self.proxy = Proxy(self.simulator, reply_delay)
        self.addCleanup(self.proxy.close)

    def start_function(self, **variables):
        super().start_function(
            {
                **self.stack.environment(),
                "AWS_ENDPOINT_URL_IOTSITEWISE": self.proxy.url,
                "AWS_ENDPOINT_URL_SQS": self.moto,
                **variables,
            }
        )
        self.emulator = self.process.pid

    def seed_all(self, projects):
        for name, ids in projects.items():
            self.seed(json.dumps({"projectId": name, "assetIds": sorted(ids)}))

    def runtime(self):
        """The process id of the bootstrap, or None where there is none."""
        return child_of(self.emulator)

    def letter_texts(self):
        return [
            (message["Body"], deployed.strings(message))
            for message in self.messages(self.dead_letters)
        ]


def child_of(parent):
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # After the name, which may have anything in it: state, parent.
            state, its_parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(its_parent) == parent and state != "Z":
            return int(directory.name)
    return None


def state_of(process):
    return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.001)
    return value


# ------------------------------------------------------------------------ kills


class Killer:
    """Kills the runtime, at a random moment, in most invocations: so many that
    when nine tenths of the work are done it was killed inside an invocation as
    often as is wanted."""

    def __init__(self, dice, inside, runtime, invoke):
        self._dice = dice
        self._runtime = runtime
        self._invoke = invoke
        # Kills that are still wanted: one that comes too late does not count.
        self.left = inside
        self.kills = 0
        self.expected_invocations = 1
        self.invocations = 0
        self._is_dead = False
        # How long the last ones took that nobody disturbed.
        self._took = collections.deque([0.3], maxlen=9)

    def invoke(self, event):
        self.invocations += 1
        if self._is_dead:
            # Killed after its answer. The emulator fails the next invocation
            # for it; Lambda may do so or start another.
            self._is_dead = False
            return self._answer(event)
        if self._dice.random() >= self._share():
            started = time.monotonic()
            answer = self._invoke(event)
            self._took.append(time.monotonic() - started)
            return answer
        kills = self.kills
        moment = self._dice.uniform(0, 0.8 * statistics.median(self._took))
        killer = threading.Timer(moment, self._kill)
        killer.start()
        answer = self._answer(event)
        killer.join()
        if answer:
            self._is_dead = True
        elif self.kills > kills:
            self.left -= 1
        return answer

    def _answer(self, event):
        """The answer, or none: the emulator says 502 when its runtime has died."""
        try:
            return self._invoke(event)
        except urllib.error.HTTPError as error:
            assert error.code == 502, error
            return ""

    def _share(self):
        """How likely a kill is. An invocation gets its work done when there is
        none, and in about one of four when it comes too late."""
        if not self.left:
            return 0
        kills = self.left * 4 / 3
        undisturbed = 0.9 * self.expected_invocations / kills - 1 / 4
        return 1 / (1 + max(0.05, undisturbed))

    def _kill(self):
        os.kill(wait_until(self._runtime), signal.SIGKILL)
        self.kills += 1


class Hasty(deployed.EventSourceMapping):
    """A mapping with a defect: it deletes messages before they are worked off."""

    def deliver(self):
        messages = self._receive()
        if messages:
            self._delete([message["ReceiptHandle"] for message in messages])
            self._invoke(json.dumps({"Records": [self._record(message) for message in messages]}))
        return bool(messages)


class Kills(Bootstrap):
    parameters = {
        "BatchSize": BATCH_SIZE,
        "BatchWindow": 0,
        "FanOutAssets": FAN_OUT_ASSETS,
        # The function alone is to empty the queue.
        "MaxReceiveCount": 1000,
    }

    def work_off(self, messages, kills, *arguments, mapping=deployed.EventSourceMapping):
        """Sends so many messages, kills the runtime so often in an invocation
        while they are worked off, and returns what is wrong in the end.

        SiteWise takes its time before it does something, and once more on the
        way back: so long a kill finds a call under way, or done and not
        answered."""
        started = time.monotonic()
        sender = Sender(self.dice)
        planned = sender.messages(messages)
        self.start_simulator(
            "--latency-ms", str(LATENCY_MS), *arguments, reply_delay=LATENCY_MS / 1000
        )
        self.seed_all(sender.bystanders)
        self.seed_all(sender.seeds)
        for asset in sender.doomed:
            self.fault(f"disassociate:asset={asset}:asset-error=INTERNAL_FAILURE")
        for fault in "status=500", "throttle", "reset-after", "truncate":
            self.fault(f"sitewise:probability=0.02:{fault}")
        # Not tried again at once, so that messages come back.
        self.fault("sitewise:probability=0.03:status=403")
        self.start_function()
        sent = dict(zip(self.send(*(message.body for message in planned)), planned, strict=True))

        killer = Killer(
            self.dice, kills, self.runtime, lambda event: http_text("POST", self.function, event)
        )
        self.mapping = mapping(self.stack, killer.invoke)
        while True:
            waiting = self.count(self.work)
            if not waiting and not killer.left:
                break
            if not waiting:
                # All was done before the last kills, by chance.
                again = self.dice.sample(planned, min(BATCH_SIZE, messages))
                sent.update(zip(self.send(*(each.body for each in again)), again, strict=True))
            killer.expected_invocations = waiting / BATCH_SIZE
            # Else something comes back for ever.
            self.assertLess(killer.invocations, 5 * (messages + kills))
            if not self.mapping.deliver() or self.dice.random() < 0.5:
                # SQS shows the messages of an invocation that was killed again
                # when the visibility timeout ends; that wait is left out.
                self.mapping.time_passes()

        self.assertEqual(self.count(self.work), 0)
        failures = [
            (len(self.mapping.failed_ids(at)), len(records))
            for at, (records, _) in enumerate(self.mapping.invocations)
        ]
        redelivered = sum(failed for failed, _ in failures)
        partial = sum(0 < failed < of for failed, of in failures)
        calls = self.calls()
        unanswered = sum(call["status"] is None for call in calls)
        letters = self.letter_texts()
        figure(
            f"kills: {killer.kills}, {kills} of them inside an invocation; {len(sent)} messages "
            f"of {sum(len(each.assets) for each in planned)} assets; {killer.invocations} "
            f"invocations, {partial} of them with some messages failed; {redelivered} "
            f"redeliveries; {len(calls)} calls, {unanswered} of them cut off; {len(letters)} "
            f"dead letters; {time.monotonic() - started:.0f} s"
        )
        self.assertEqual(killer.left, 0)
        return list(wrongs(sent, self.projects(), letters, sender.bystanders))

    def test_nothing_is_lost(self):
        found = self.work_off(SIZES.messages, SIZES.kills, "--tokens", "all")
        self.assertEqual(found, [])

    def test_nothing_is_lost_where_an_asset_that_is_gone_is_refused(self):
        found = self.work_off(
            SIZES.refused_messages,
            SIZES.refused_kills,
            *("--tokens", "successes", "--asset-not-in-project", "not-found"),
        )
        self.assertEqual(found, [])

    def test_what_a_hasty_mapping_loses_is_found(self):
        found = self.work_off(60, 8, mapping=Hasty)
        FIGURES.pop()
        self.assertNotEqual(found, [])


# -------------------------------------------------------------------- deadlines


def record(key, body):
    return {"messageId": key, "eventSource": "aws:sqs", "body": body}


def sqs_event(messages):
    return json.dumps({"Records": [record(key, each.body) for key, each in messages.items()]})


def failed(answer):
    """The messages that a partial batch response names."""
    answer = json.loads(answer)
    assert list(answer) == ["batchItemFailures"], answer
    return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}


def environment(simulator, queue_name):
    return {
        **deployed.CREDENTIALS,
        "AWS_REGION": deployed.REGION,
        "AWS_LAMBDA_FUNCTION_NAME": "sitewise-disassociator",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_ENDPOINT_URL": simulator,
        "DEAD_LETTER_QUEUE_URL": f"{simulator}/000000000000/{queue_name}",
    }


class Deadlines(emulated.EmulatedFunction):
    """In each case a cold process is invoked once with so much time left, for a
    few messages. SiteWise fails for the project of one of them, or SQS for the
    dead-letter queue, or both.

    What is asserted, whatever the time left: the answer comes before the
    deadline, and each message that it does not name is done or in a dead
    letter; after another delivery all are. And, of the time left:

    - less than LEAST_RESERVE + SHORTEST_CALL: no call is started, so that every
      message with assets to disassociate is named
    - a second or more: a message is named only if its project or queue fails
    """

    FAULTS = {
        "stall": ("disassociate:project={project}:stall",),
        "stall-after": ("disassociate:project={project}:stall-after",),
        "stall-body": ("disassociate:project={project}:stall-body",),
        "latency": ("disassociate:project={project}:latency=70000ms",),
        "queue stall": ("sqs:queue={queue}:stall",),
        "queue stall-body": ("sqs:queue={queue}:stall-body",),
        "both stall": ("disassociate:project={project}:stall", "sqs:queue={queue}:stall"),
        # Of many messages, for which not even the queue has the time.
        "many": ("disassociate:project={project}:stall", "sqs:queue={queue}:latency=80ms"),
    }
    MANY = 200

    def test_the_answer_comes_before_the_deadline(self):
        started = time.monotonic()
        planned = [
            (seconds, fault)
            for seconds in SIZES.seconds_left
            for fault in self.FAULTS
            # Only to read it takes a slow machine longer.
            if not (fault == "many" and seconds <= ANSWER_RESERVE)
        ]
        cases = [Case(number, *case) for number, case in enumerate(planned)]
        self.start_simulator(*(word for case in cases for word in ("--queue", case.queue)))
        for case in cases:
            case.set_up(self)
        # One by one where little time is left, lest they wait for each other, and
        # of the others those first that have the most.
        for case in cases:
            if case.seconds_left <= 1:
                case.invoke()
        invoked = []
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            for case in reversed(cases):
                if case.seconds_left > 1:
                    invoked.append(pool.submit(case.invoke))
                    time.sleep(0.1)
        for each in invoked:
            each.result()
        state = self.state(cases)
        for case in cases:
            with self.subTest(seconds_left=case.seconds_left, fault=case.fault):
                case.check(self, *state)
        self.clear_faults()
        for case in cases:
            with self.subTest("next delivery", seconds_left=case.seconds_left, fault=case.fault):
                self.assertEqual(case.deliver_again(), set())
        projects, letters, _ = self.state(cases)
        for case in cases:
            self.assertEqual(list(case.wrongs(case.messages, projects, letters)), [])
        margins = collections.defaultdict(list)
        for case in cases:
            margins[case.seconds_left].append(case.margin)
        figure(
            f"deadlines: {len(cases)} cases in {time.monotonic() - started:.0f} s; seconds left, "
            "and seconds between the last answer and the deadline: "
            + ", ".join(f"{seconds}: {min(each):.3f}" for seconds, each in margins.items())
        )

    def state(self, cases):
        letters = {
            case.queue: [
                (letter["body"], letter["attributes"])
                for letter in emulated.http(
                    "GET", f"{self.simulator}/_simulator/queues/{case.queue}"
                )
            ]
            for case in cases
        }
        return self.projects(), letters, self.calls()


class Case:
    def __init__(self, number, seconds_left, fault):
        self.seconds_left = seconds_left
        self.fault = fault
        self.queue = f"dead-letters-{number}"
        self.faulty, self.healthy = project(2 * number), project(2 * number + 1)
        ids = iter(assets(*range(100_000 * number, 100_000 * (number + 1))))

        def message(name, count, *bad_ids):
            wanted = [next(ids) for _ in range(count)]
            body = json.dumps({"projectId": name, "assetIds": [*wanted, *bad_ids]})
            return Message(body, name, tuple(wanted), bad_ids)

        self.messages = {
            "two batches": message(self.faulty, 150),
            "healthy": message(self.healthy, 3),
            "bad id": message(self.healthy, 2, "PUMP-7"),
            "no request": Message("decommission line 3"),
        }
        if fault == "many":
            for at in range(Deadlines.MANY):
                self.messages[f"batch {at}"] = message(self.faulty, 100)
                self.messages[f"no request {at}"] = Message(f"decommission line {at}")
        self.sandbox = None
        self.failed = None
        self.margin = None

    def set_up(self, test):
        for message in self.messages.values():
            if message.project:
                test.seed(message.body)
        for fault in test.FAULTS[self.fault]:
            test.fault(fault.format(project=self.faulty, queue=self.queue))
        self.sandbox = Sandbox(environment(test.simulator, self.queue))
        test.addCleanup(self.sandbox.close)

    def invoke(self):
        answer, self.margin = self.sandbox.invoke(sqs_event(self.messages), self.seconds_left)
        self.failed = failed(answer)

    def check(self, test, projects, letters, calls):
        test.assertGreater(self.margin, 0)
        done = {key: each for key, each in self.messages.items() if key not in self.failed}
        test.assertEqual(list(self.wrongs(done, projects, letters)), [])
        if self.seconds_left < LEAST_RESERVE + SHORTEST_CALL:
            test.assertLessEqual({"two batches", "healthy", "bad id"}, self.failed)
            test.assertEqual(
                [call for call in calls if call["projectId"] in (self.faulty, self.healthy)], []
            )
        if self.fault == "many":
            test.assertLessEqual({key for key in self.messages if "batch" in key}, self.failed)
        elif self.seconds_left >= 1:
            expected = set()
            if not self.fault.startswith("queue"):
                expected.add("two batches")
            if self.fault.startswith(("queue", "both")):
                expected |= {"bad id", "no request"}
            test.assertEqual(self.failed, expected)

    def deliver_again(self):
        again = {key: each for key, each in self.messages.items() if key in self.failed}
        answer, _ = self.sandbox.invoke(sqs_event(again), 60)
        return failed(answer)

    def wrongs(self, messages, projects, letters):
        # Another one may have a letter too, which SQS has not confirmed.
        theirs = [
            (body, attributes)
            for body, attributes in letters[self.queue]
            if attributes["SourceMessageId"] in messages
        ]
        return wrongs(messages, projects, theirs, {})


# -------------------------------------------------------------- freeze and thaw


class Frozen:
    """A warm process that is frozen between invocations, as Lambda does; its
    connections die meanwhile. The next event is there before it thaws."""

    QUEUE = "dead-letters"

    def __init__(self, test, number):
        self.test = test
        self.dice = random.Random(f"{SEED} {test.id()} {number}")
        self.sitewise, self.sqs = Proxy(test.simulator), Proxy(test.simulator)
        self.proxies = self.sitewise, self.sqs
        for proxy in self.proxies:
            test.addCleanup(proxy.close)
        test.start_function(
            {
                **environment(test.simulator, self.QUEUE),
                "AWS_ENDPOINT_URL": "",
                "AWS_ENDPOINT_URL_IOTSITEWISE": self.sitewise.url,
                "AWS_ENDPOINT_URL_SQS": self.sqs.url,
                "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
            }
        )
        self.function, emulator = test.function, test.process.pid
        self.first_asset = 1_000_000 * (number + 1)
        self.cycles = 0
        # How often there was none to close.
        self.without_connection = 0
        self.messages = {}
        self.failures = collections.Counter()
        self.invoke(*self.event(8))
        self.process = wait_until(lambda: child_of(emulator))

    def event(self, projects):
        """A message for each of so many projects, and one for the dead letters."""
        messages = {}
        for number in range(1, projects + 1):
            self.first_asset += 1
            wanted = assets(self.first_asset)
            body = deployed.request(number, wanted)
            self.test.seed(body)
            messages[f"message of {wanted[0]}"] = Message(body, project(number), tuple(wanted))
        messages[f"no request, {self.first_asset}"] = Message("decommission line 3")
        return sqs_event(messages), messages

    def invoke(self, event, messages):
        self.messages.update(messages)
        return failed(http_text("POST", self.function, event))

    def cycle(self, pool, way, projects):
        """Freezes it, closes its connections in a way of `Freezes.WAYS`, thaws it
        for an event with so many projects, and counts the messages that fail."""
        self.cycles += 1
        (how, unnoticed), is_late = way
        event = self.event(projects)
        os.kill(self.process, signal.SIGSTOP)
        try:
            wait_until(lambda: state_of(self.process) == "T")
            if not is_late:
                self.close_connections(how, unnoticed)
            answer = pool.submit(self.invoke, *event)
            # Nearly always enough for the event to be there.
            time.sleep(0.005)
        finally:
            os.kill(self.process, signal.SIGCONT)
        if is_late:
            time.sleep(self.dice.uniform(0, 0.003))
            self.close_connections(how, unnoticed)
        self.failures[way] += len(answer.result())
        if is_late:
            # So that there are connections again, should all have gone unused.
            self.invoke(*self.event(1))

    def close_connections(self, how, most):
        for proxy in self.proxies:
            self.without_connection += not proxy.close_connections(how, most)


class Freezes(emulated.EmulatedFunction):
    # How connections are closed, and at most how many in this way: the others
    # get the server's end. (Each of a call's three attempts may meet another
    # one of those that died unnoticed.)
    ENDED, RESET, TWO_UNNOTICED = ("end", None), ("reset", None), ("silence", 2)
    ALL_UNNOTICED = ("silence", None)
    # And whether it happens as the process thaws, instead of while it is frozen.
    WAYS = [
        (ENDED, False),
        (ENDED, True),
        (RESET, False),
        (RESET, True),
        (TWO_UNNOTICED, False),
    ]
    PROCESSES = 4

    def setUp(self):
        self.start_simulator("--queue", Frozen.QUEUE)

    def freeze(self, cycles, ways, projects):
        """Freezes each of several processes so often, for events of one of these
        numbers of projects."""
        started = time.monotonic()
        processes = [Frozen(self, number) for number in range(self.PROCESSES)]

        def run(frozen):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                for cycle in range(cycles // self.PROCESSES):
                    way = ways[cycle % len(ways)]
                    frozen.cycle(pool, way, projects[cycle % len(projects)])

        with concurrent.futures.ThreadPoolExecutor(self.PROCESSES) as pool:
            list(pool.map(run, processes))
        proxies = [proxy for frozen in processes for proxy in frozen.proxies]
        closed = {how: sum(proxy.closed[how] for proxy in proxies) for how in ENDS}
        met = {how: sum(proxy.met[how] for proxy in proxies) for how in ENDS}
        failures = sum((frozen.failures for frozen in processes), collections.Counter())
        figure(
            f"freezes: {sum(frozen.cycles for frozen in processes)} of {len(processes)} processes; "
            f"connections closed: {closed}, and then used: {met}; messages failed: "
            f"{sum(failures.values())} of {sum(len(frozen.messages) for frozen in processes)}; "
            f"{time.monotonic() - started:.0f} s"
        )
        for frozen in processes:
            os.kill(frozen.process, 0)
        self.assertEqual(+failures, {})
        messages = {key: each for frozen in processes for key, each in frozen.messages.items()}
        letters = [
            (letter["body"], letter["attributes"])
            for letter in emulated.http("GET", f"{self.simulator}/_simulator/queues/{Frozen.QUEUE}")
        ]
        self.assertEqual(list(wrongs(messages, self.projects(), letters, {})), [])
        self.calls()
        self.assertEqual(sum(frozen.without_connection for frozen in processes), 0)
        # To SiteWise and to SQS, one at least.
        unnoticed = cycles // self.PROCESSES // len(ways) * self.PROCESSES
        self.assertGreaterEqual(met["silence"], 2 * unnoticed)

    def test_no_message_fails(self):
        self.freeze(SIZES.cycles, self.WAYS, [1, 8, 1])

    def test_no_message_fails_where_all_of_eight_connections_died_unnoticed(self):
        self.freeze(SIZES.cycles // 10, [(self.ALL_UNNOTICED, False)], [1, 8])


# ----------------------------------------------------------------------- outage


class Outage(Bootstrap):
    parameters = {"MaxReceiveCount": 1000}

    MESSAGES = 20

    def test_the_invocation_after_an_outage_succeeds(self):
        """SiteWise answers 503 for half the time, then refuses connections."""
        self.start_simulator()
        self.start_function()
        self.mapping = deployed.EventSourceMapping(
            self.stack, lambda event: http_text("POST", self.function, event)
        )
        wanted = {project(number): assets(number) for number in range(1, self.MESSAGES + 1)}
        self.seed_all(wanted)
        self.send(deployed.request(100, assets(100)))
        self.seed_all({project(100): assets(100)})
        self.mapping.deliver()
        process = self.runtime()
        ids = set(self.send(*(deployed.request(number, assets(number)) for number in range(1, 21))))

        started = time.monotonic()
        self.fault("disassociate:status=503")
        deliveries = {"503": 0, "refused": 0}
        attempts = {}
        for half, end in ("503", SIZES.outage_seconds / 2), ("refused", SIZES.outage_seconds):
            if half == "refused":
                self.proxy.refuse()
            while time.monotonic() - started < end:
                before = len(self.calls())
                self.assertTrue(self.mapping.deliver())
                self.assertEqual(self.mapping.failed_ids(-1), ids)
                deliveries[half] += 1
                attempts[half] = len(self.calls()) - before
                # The wait for the visibility timeout is left out.
                self.mapping.time_passes()
        lasted = time.monotonic() - started
        # Else it would prove nothing: a call has three when there is quota.
        self.assertLess(attempts["503"], 3 * self.MESSAGES)
        self.clear_faults()
        self.proxy.listen()

        self.mapping.deliver()
        self.assertEqual(self.mapping.failed_ids(-1), set())
        self.assertEqual(self.count(self.work), 0)
        self.assert_projects_are_empty()

        # There is quota again, of ten a second: ten is a retry's price.
        time.sleep(6)
        self.seed_all(wanted)
        self.fault("disassociate:first=5:status=503")
        self.send(*(deployed.request(number, assets(number)) for number in range(1, 6)))
        self.mapping.deliver()
        self.assertEqual(self.mapping.failed_ids(-1), set())
        self.assertEqual(self.count(self.work), 0)
        self.assertEqual(self.count(self.dead_letters), 0)
        self.assertEqual(self.runtime(), process)
        figure(
            f"outage: {lasted:.0f} s; {self.MESSAGES} messages delivered {deliveries} times "
            f"meanwhile; attempts in the last answered with 503: {attempts['503']} "
            f"of {3 * self.MESSAGES}"
        )


def main():
    global SIZES, SEED
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], add_help=False)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments, sys.argv[1:] = parser.parse_known_args()
    SEED = arguments.seed
    if arguments.short:
        SIZES = SHORT
    emulated.main()


if __name__ == "__main__":
    main()
