#!/usr/bin/env python3
"""Interrupts the release bootstrap as only a real process can be: it is killed at
work, short of time, and frozen while its connections die.

The simulation (crates/simulation) does the rest: it has every kind of failure in
many orders, but neither processes nor sockets.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import threading
import time
import unittest
import urllib.error

import emulator
from event_source_mapping import batches
from events import assets, project, sqs_event, sqs_record
from processes import wait_until
from proxy import Proxy
from runtime_api import Function

# As src/deadline.rs and src/dispatch have them: what is kept for the response at
# least, and the shortest time for a call.
RESPONSE_RESERVE = 0.1
LEAST_RESERVE = 0.3
SHORTEST_CALL = 0.4

NO_REQUEST = "decommission line 3"


@dataclasses.dataclass(frozen=True)
class Message:
    number: int
    project: str = None
    assets: tuple = ()
    bad_ids: tuple = ()

    @property
    def record(self):
        if not self.project:
            return sqs_record(self.number, NO_REQUEST)
        body = {"projectId": self.project, "assetIds": [*self.assets, *self.bad_ids]}
        return sqs_record(self.number, body)

    @property
    def id(self):
        return self.record["messageId"]


class Sender:
    """Makes messages, each with assets of its own."""

    def __init__(self, first=1):
        self._next_asset = first
        self._next_message = first

    def message(self, project_number, asset_count, *bad_ids):
        first = self._next_asset
        self._next_asset += asset_count
        wanted = assets(*range(first, first + asset_count))
        return Message(self._number(), project(project_number), tuple(wanted), bad_ids)

    def unreadable(self):
        return Message(self._number())

    def _number(self):
        self._next_message += 1
        return self._next_message - 1


def event(messages):
    return json.dumps(sqs_event(*(message.record for message in messages)))


def failed(response):
    """Returns the ids of the messages that a partial batch response names."""
    assert list(response) == ["batchItemFailures"], response
    return {failure["itemIdentifier"] for failure in response["batchItemFailures"]}


def lost(messages, projects, dead_letters):
    """Yields what is lost of messages that were acknowledged: each asset must be out
    of its project or in a dead letter, and each bad id and each unreadable message
    in a dead letter. No dead letter names an asset that is out of its project."""
    named = collections.defaultdict(set)
    unreadable = set()
    for letter in dead_letters:
        source = letter["attributes"]["SourceMessageId"]
        if letter["body"] == NO_REQUEST:
            unreadable.add(source)
        else:
            named[source] |= set(json.loads(letter["body"])["assetIds"])
    for message in messages:
        if not message.project and message.id not in unreadable:
            yield f"{message.id}: in no dead letter"
        listed = set(message.assets) & set(projects.get(message.project, []))
        remaining = listed | set(message.bad_ids)
        if named[message.id] != remaining:
            yield f"{message.id}: {named[message.id] ^ remaining}"


class Lost(unittest.TestCase):
    def setUp(self):
        self.messages = [Message(1, project(1), tuple(assets(1, 2)), ("PUMP-7",)), Message(2)]
        self.projects = {project(1): assets(2, 5)}
        first, second = (message.id for message in self.messages)
        self.dead_letters = [
            self.dead_letter(first, assets(2)),
            self.dead_letter(first, ["PUMP-7"]),
            {"body": NO_REQUEST, "attributes": {"SourceMessageId": second}},
        ]

    def dead_letter(self, source, ids):
        body = json.dumps({"assetIds": ids})
        return {"body": body, "attributes": {"SourceMessageId": source}}

    def lost(self):
        return list(lost(self.messages, self.projects, self.dead_letters))

    def test_nothing_is_lost_where_each_has_its_place_once_or_more(self):
        self.assertEqual(self.lost(), [])
        self.dead_letters *= 2
        self.assertEqual(self.lost(), [])

    def test_each_dead_letter_is_needed(self):
        dead_letters = self.dead_letters
        for at in range(3):
            self.dead_letters = dead_letters[:at] + dead_letters[at + 1 :]
            self.assertEqual(len(self.lost()), 1)

    def test_a_remaining_asset_needs_a_dead_letter(self):
        self.projects[project(1)] += assets(1)
        self.assertEqual(len(self.lost()), 1)

    def test_an_asset_that_is_gone_must_not_be_in_a_dead_letter(self):
        self.projects[project(1)].remove(*assets(2))
        self.assertEqual(len(self.lost()), 1)


def child_of(parent):
    """Returns the id of a process's child, or `None` where there is none."""
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, its_parent = status_of(directory.name)
            if int(its_parent) == parent and state != "Z":
                return int(directory.name)
    return None


def status_of(process):
    """Returns the state and the parent of a process."""
    text = pathlib.Path(f"/proc/{process}/stat").read_text()
    # After the name, which may contain anything.
    return text.rpartition(")")[2].split()[:2]


class Kills(emulator.EmulatedFunction):
    """The process is killed while it processes each batch, a little later each
    time. The emulator then answers 502 and starts another at the next event, as
    Lambda does. The batch is delivered again, as SQS does."""

    BATCHES = 20
    LATENCY_MS = 40
    # An invocation takes at least three requests, one after the other.
    LATEST_SECONDS = 3 * LATENCY_MS / 1000

    def test_nothing_is_lost(self):
        sender = Sender()
        messages = []
        for number in range(self.BATCHES):
            messages += [
                sender.message(number % 7, 1),
                sender.message(number % 7, 20, f"PUMP-{number}"),
                sender.message(number % 3, 101),
                sender.unreadable(),
            ]
        self.start_simulator("--latency-ms", str(self.LATENCY_MS))
        self.seed({"projectId": project(99), "assetIds": []})
        for message in messages:
            if message.project:
                self.seed({"projectId": message.project, "assetIds": message.assets})
        for message in messages[::10]:
            for asset in message.assets[-1:]:
                self.fault(f"disassociate:asset={asset}:asset-error=INTERNAL_FAILURE")
        self.start_function(AWS_ENDPOINT_URL=self.simulator, **self.queue_variables())

        killed_at_work = 0
        for number, batch in enumerate(batches(messages, 4)):
            # A process that was killed after its response fails the next event.
            while self.deliver([sender.message(99, 1)]):
                pass
            killer = threading.Timer(self.LATEST_SECONDS * number / self.BATCHES, self.kill)
            killer.start()
            left = self.deliver(batch)
            killer.join()
            killed_at_work += left == batch
            while left:
                left = self.deliver(left)

        self.assertGreater(killed_at_work, self.BATCHES / 2)
        unanswered = [call for call in self.calls() if call["status"] is None]
        self.assertTrue(unanswered, "no call was cut off")
        found = lost(messages, self.projects(), self.queued(self.DEAD_LETTERS))
        self.assertEqual(list(found), [])

    def deliver(self, messages):
        """Invokes the function, and returns the messages that SQS would keep."""
        try:
            names = failed(self.invoke(event(messages)))
        except urllib.error.HTTPError as error:
            self.assertEqual(error.code, 502)
            return messages
        return [message for message in messages if message.id in names]

    def kill(self):
        os.kill(child_of(self.emulator.pid), signal.SIGKILL)


class Deadlines(emulator.SimulatedServices):
    """In each case a cold process is invoked once with so much time left, for a
    few messages. SiteWise fails for the project of one of them, or SQS for the
    dead-letter queue, or both.

    Whatever the time left: the response comes before the deadline, and each
    message that it does not name is processed; after another delivery all are.
    And by the time left:

    - less than LEAST_RESERVE + SHORTEST_CALL: no call is started
    - a second or more: a message is named only if its project or queue fails
    """

    SECONDS_LEFT = (0.1, 0.3, 0.5, 1, 3)
    FAULTS = {
        "stall": ("disassociate:project={project}:stall",),
        "stall-after": ("disassociate:project={project}:stall-after",),
        "stall-body": ("disassociate:project={project}:stall-body",),
        "latency": ("disassociate:project={project}:latency=70000ms",),
        "queue stall": ("sqs:queue={queue}:stall",),
        "queue stall-body": ("sqs:queue={queue}:stall-body",),
        "both stall": ("disassociate:project={project}:stall", "sqs:queue={queue}:stall"),
        # Of so many messages that there is not even time for the queue.
        "many": ("disassociate:project={project}:stall", "sqs:queue={queue}:latency=80ms"),
    }

    def test_the_response_comes_before_the_deadline(self):
        sender = Sender()
        cases = [
            Case(sender, number, seconds_left, fault)
            for number, (seconds_left, fault) in enumerate(
                (seconds_left, fault)
                for seconds_left in self.SECONDS_LEFT
                for fault in self.FAULTS
                # A slow machine takes longer only to read it.
                if not (fault == "many" and seconds_left <= RESPONSE_RESERVE)
            )
        ]
        self.start_simulator(*(word for case in cases for word in ("--queue", case.queue)))
        for case in cases:
            case.set_up(self)
        # One by one where little time is left, so that they do not slow each other.
        for case in cases:
            if case.seconds_left < 1:
                case.invoke()
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            invoked = []
            for case in cases:
                if case.seconds_left >= 1:
                    invoked.append(pool.submit(case.invoke))
                    time.sleep(0.1)
        for each in invoked:
            each.result()
        projects, calls = self.projects(), self.calls()
        for case in cases:
            with self.subTest(seconds_left=case.seconds_left, fault=case.fault):
                case.check(self, projects, calls)
        self.clear_faults()
        for case in cases:
            with self.subTest("next delivery", seconds_left=case.seconds_left, fault=case.fault):
                self.assertEqual(case.deliver_again(), set())
        projects = self.projects()
        for case in cases:
            self.assertEqual(case.lost(self, case.messages.values(), projects), [])


class Case:
    def __init__(self, sender, number, seconds_left, fault):
        self.seconds_left = seconds_left
        self.fault = fault
        self.queue = f"dead-letters-{number}"
        faulty, healthy = 2 * number, 2 * number + 1
        self.faulty, self.healthy = project(faulty), project(healthy)
        self.messages = {
            "two batches": sender.message(faulty, 150),
            "healthy": sender.message(healthy, 3),
            "bad id": sender.message(healthy, 2, "PUMP-7"),
            "unreadable": sender.unreadable(),
        }
        if fault == "many":
            for at in range(200):
                self.messages[f"batch {at}"] = sender.message(faulty, 100)
                self.messages[f"unreadable {at}"] = sender.unreadable()

    def set_up(self, test):
        for message in self.messages.values():
            if message.project:
                test.seed({"projectId": message.project, "assetIds": message.assets})
        for fault in test.FAULTS[self.fault]:
            test.fault(fault.format(project=self.faulty, queue=self.queue))
        environment = {
            **emulator.ENVIRONMENT,
            "AWS_ENDPOINT_URL": test.simulator,
            "DEAD_LETTER_QUEUE_URL": f"{test.simulator}/000000000000/{self.queue}",
        }
        self.function = Function(emulator.BOOTSTRAP, environment)
        test.addCleanup(self.function.stop)

    def invoke(self):
        response = self.function.invoke(event(self.messages.values()).encode(), self.seconds_left)
        self.margin = self.seconds_left - response.seconds
        self.failed = failed(response.body)

    def named(self):
        return {key for key, message in self.messages.items() if message.id in self.failed}

    def check(self, test, projects, calls):
        test.assertGreater(self.margin, 0)
        named = self.named()
        acknowledged = [each for each in self.messages.values() if each.id not in self.failed]
        test.assertEqual(self.lost(test, acknowledged, projects), [])
        if self.seconds_left < LEAST_RESERVE + SHORTEST_CALL:
            test.assertLessEqual({"two batches", "healthy", "bad id"}, named)
            own = self.faulty, self.healthy
            test.assertEqual([call for call in calls if call["projectId"] in own], [])
        if self.fault == "many":
            test.assertLessEqual({key for key in self.messages if "batch" in key}, named)
        elif self.seconds_left >= 1:
            expected = set()
            if not self.fault.startswith("queue"):
                expected.add("two batches")
            if self.fault.startswith(("queue", "both")):
                expected |= {"bad id", "unreadable"}
            test.assertEqual(named, expected)

    def deliver_again(self):
        again = [each for each in self.messages.values() if each.id in self.failed]
        return failed(self.function.invoke(event(again).encode()).body)

    def lost(self, test, messages, projects):
        return list(lost(messages, projects, test.queued(self.queue)))


class Frozen:
    """A warm process that is frozen between invocations, as Lambda does. Its
    connections die meanwhile, and the next event is there before it thaws."""

    def __init__(self, test, number):
        self.test = test
        self.dice = random.Random(number)
        self.sender = Sender(1_000_000 * (number + 1))
        self.proxies = Proxy(test.simulator), Proxy(test.simulator)
        for proxy in self.proxies:
            test.addCleanup(proxy.close)
        sitewise, sqs = self.proxies
        test.start_function(
            AWS_ENDPOINT_URL_IOTSITEWISE=sitewise.url,
            AWS_ENDPOINT_URL_SQS=sqs.url,
            **test.queue_variables(),
        )
        self.function, parent = test.function, test.emulator.pid
        self.messages = []
        self.failures = collections.Counter()
        # How often there was no connection to close.
        self.without_connection = 0
        self.invoke(self.next_messages(8))
        self.process = wait_until(lambda: child_of(parent))

    def next_messages(self, projects):
        """Returns a message for each of so many projects, and one for SQS."""
        messages = [self.sender.message(number, 1) for number in range(1, projects + 1)]
        for message in messages:
            self.test.seed({"projectId": message.project, "assetIds": message.assets})
        return [*messages, self.sender.unreadable()]

    def invoke(self, messages):
        self.messages += messages
        return failed(emulator.http("POST", self.function, event(messages)))

    def cycle(self, pool, way, projects):
        """Freezes the process, closes its connections in a way of `Freezes.WAYS`,
        thaws it for an event with so many projects, and counts failed messages."""
        (how, most), is_late = way
        messages = self.next_messages(projects)
        os.kill(self.process, signal.SIGSTOP)
        try:
            wait_until(lambda: status_of(self.process)[0] == "T", interval=0.001)
            if not is_late:
                self.close_connections(how, most)
            response = pool.submit(self.invoke, messages)
            # Nearly always enough for the event to be there.
            time.sleep(0.005)
        finally:
            os.kill(self.process, signal.SIGCONT)
        if is_late:
            time.sleep(self.dice.uniform(0, 0.003))
            self.close_connections(how, most)
        self.failures[way] += len(response.result())
        if is_late:
            # So that there are connections again if none was used.
            self.invoke(self.next_messages(1))

    def close_connections(self, how, most):
        for proxy in self.proxies:
            self.without_connection += not proxy.close_connections(how, most)


class Freezes(emulator.EmulatedFunction):
    # How connections are closed, and at most how many in this way: the others get
    # the server's end.
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

    def freeze(self, cycles, ways, projects):
        """Freezes each of several processes so often, for events of one of these
        numbers of projects."""
        self.start_simulator()
        processes = [Frozen(self, number) for number in range(self.PROCESSES)]

        def run(frozen):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                for cycle in range(cycles):
                    way = ways[cycle % len(ways)]
                    frozen.cycle(pool, way, projects[cycle % len(projects)])

        with concurrent.futures.ThreadPoolExecutor(self.PROCESSES) as pool:
            list(pool.map(run, processes))
        for frozen in processes:
            # It is still alive.
            os.kill(frozen.process, 0)
            self.assertEqual(+frozen.failures, {})
            found = lost(frozen.messages, self.projects(), self.queued(self.DEAD_LETTERS))
            self.assertEqual(list(found), [])
            self.assertEqual(frozen.without_connection, 0)
        self.calls()
        # At least one to SiteWise each time; its failure drops those to SQS unused.
        silent = cycles // len(ways) * self.PROCESSES
        used = sum(proxy.used["silence"] for frozen in processes for proxy in frozen.proxies)
        self.assertGreaterEqual(used, silent)

    def test_no_message_fails(self):
        self.freeze(25, self.WAYS, [1, 8, 1])

    def test_no_message_fails_where_all_of_eight_connections_died_unnoticed(self):
        self.freeze(4, [(self.ALL_UNNOTICED, False)], [1, 8])


if __name__ == "__main__":
    emulator.install_requirements()
    emulator.main()
