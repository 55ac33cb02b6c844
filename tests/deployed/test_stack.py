#!/usr/bin/env python3
"""Tests the release bootstrap in the stack of template.yaml, without an account.

SAM's own translator and moto's CloudFormation, SQS, EventBridge, Lambda and IAM
deploy the stack (`stack`). The bootstrap runs under AWS's runtime interface
emulator, with the environment that the stack gives it. It calls the simulator's
SiteWise and moto's SQS, and botocore checks every request (`wire`).
"""

import dataclasses
import datetime
import json
import os
import shlex
import sys
import tempfile
import time
import unittest
import uuid

import emulator
import processes
from emulator import http, http_text
from event_source_mapping import EventSourceMapping, batches, failed_ids
from events import as_text, asset, assets, portal, project, request, rule_event, sample

# Before the imports of what it installs.
emulator.install_requirements()

from stack import CREDENTIALS, REGION, Stack  # noqa: E402
from wire import Reader, Recorder  # noqa: E402

STACK_NAME = "decommissioning"
ACCOUNT = "123456789012"
READERS = {service: Reader(service, REGION, CREDENTIALS) for service in ("iotsitewise", "sqs")}


def setUpModule():
    port = processes.free_port()
    output = tempfile.TemporaryFile("w+")
    unittest.addModuleCleanup(output.close)
    server = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", port]
    environment = {**os.environ, "PYTHONPATH": str(emulator.PACKAGES)}
    unittest.addModuleCleanup(processes.stop, processes.start(server, environment, output))
    processes.wait_for_port(port, seconds=60)
    Deployed.moto = f"http://127.0.0.1:{port}"


class Deployed(emulator.EmulatedFunction):
    """Each test has a stack of its own, with empty queues."""

    parameters = {}
    simulator_arguments = []

    def setUp(self):
        http("POST", f"{self.moto}/moto-api/reset")
        self.stack = Stack(self.moto, STACK_NAME, **self.parameters)
        self.sqs = self.stack.client("sqs")
        self.work = self.stack.outputs["WorkQueueUrl"]
        self.dead_letters = self.stack.outputs["DeadLetterQueueUrl"]
        self.start_simulator(*self.simulator_arguments)
        self.wire = {"iotsitewise": Recorder(self.simulator), "sqs": Recorder(self.moto)}
        for recorder in self.wire.values():
            self.addCleanup(recorder.close)
        self.start_function(sitewise=self.wire["iotsitewise"].url)
        self.mapping = EventSourceMapping(
            self.stack, lambda event: http_text("POST", self.function, event)
        )

    def start_function(self, sitewise):
        # The stack's own variables stay as they are: the SDK sends requests to
        # these endpoints, and the queue's URL is a parameter of the request.
        super().start_function(
            **self.stack.environment(),
            AWS_ENDPOINT_URL_IOTSITEWISE=sitewise,
            AWS_ENDPOINT_URL_SQS=self.wire["sqs"].url,
        )

    def tearDown(self):
        """Checks after every test that the function's requests were valid, that its
        role permits them, and its log lines."""
        for line in self.log():
            self.assertEqual(line["service"], STACK_NAME)
            self.assertRegex(line["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
            self.assertIn(line["level"], ["INFO", "WARN", "ERROR"])
            self.assertTrue(line["function_request_id"])
        for operation, parameters in self.read("iotsitewise"):
            kind = "portal" if "portalId" in parameters else "project"
            arn = f"arn:aws:iotsitewise:{REGION}:{ACCOUNT}:{kind}/{parameters[f'{kind}Id']}"
            action = f"iotsitewise:{operation}"
            self.assertTrue(self.stack.permits(action, arn), f"{action} {arn}")
        for operation, parameters in self.read("sqs"):
            arn = self.stack.queue_attributes(parameters["QueueUrl"])["QueueArn"]
            # IAM has no actions of batches: they take the right to a single one.
            action = f"sqs:{operation.removesuffix('Batch')}"
            self.assertTrue(self.stack.permits(action, arn), f"{action} {arn}")

    def read(self, service):
        """Returns the operations and parameters that the function sent to a service."""
        return [READERS[service].read(request) for request in self.wire[service].requests]

    def send(self, *bodies):
        """Sends messages to the work queue and returns their ids."""
        ids = []
        for batch in batches(bodies, 10):
            entries = [{"Id": str(at), "MessageBody": as_text(body)} for at, body in enumerate(batch)]
            sent = self.sqs.send_message_batch(QueueUrl=self.work, Entries=entries)
            self.assertEqual(sent.get("Failed", []), [])
            stored = {entry["Id"]: entry["MessageId"] for entry in sent["Successful"]}
            ids += [stored[entry["Id"]] for entry in entries]
        return ids

    def messages(self, queue):
        """Returns a queue's visible messages, which stay there."""
        messages = []
        while True:
            received = self.sqs.receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=10,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not received:
                break
            messages += received
        for message in messages:
            self.sqs.change_message_visibility(
                QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
        return messages

    def count(self, queue):
        """Returns how many messages a queue has, with the hidden ones."""
        attributes = self.stack.queue_attributes(queue)
        return sum(
            int(value)
            for name, value in attributes.items()
            if name.startswith("ApproximateNumberOfMessages")
        )

    def assert_counts(self, work, dead_letters):
        self.assertEqual(
            {"work": self.count(self.work), "dead letters": self.count(self.dead_letters)},
            {"work": work, "dead letters": dead_letters},
        )

    def written_dead_letters(self):
        """Returns the function's dead letters by their source message: the body,
        which an unreadable message keeps, and the attributes."""
        dead_letters = {}
        for message in self.messages(self.dead_letters):
            attributes = strings(message)
            body = message["Body"]
            if "deadLetteredAt" in body:
                body = json.loads(body)
                written = datetime.datetime.fromisoformat(body.pop("deadLetteredAt"))
                self.assertLess(abs(written.timestamp() - time.time()), 60)
            self.assertNotIn(attributes["SourceMessageId"], dead_letters)
            dead_letters[attributes["SourceMessageId"]] = (body, attributes)
        return dead_letters

    def request_id(self):
        """Returns the request id of the one invocation so far."""
        [request_id] = {line["function_request_id"] for line in self.log()}
        return request_id

    def dead_letter(self, number, source, *failures):
        """Returns the dead letter that the contract asks for, for assets of one
        message with their codes and messages: its body without the time, and its
        attributes."""
        _, code, text = failures[0]
        body = {
            "projectId": project(number),
            "assetIds": [asset for asset, _, _ in failures],
            "errors": [
                {"assetId": asset, "code": code, "message": text} for asset, code, text in failures
            ],
            "source": {
                "eventSource": "aws:sqs",
                "messageId": source,
                "requestId": self.request_id(),
            },
        }
        return body, self.attributes(source, code, text, ProjectId=project(number))

    def attributes(self, source, code, text, **more):
        """Returns the attributes that the function gives a dead letter."""
        return {
            "RequestID": self.request_id(),
            "ErrorCode": code,
            "ErrorMessage": text,
            "SourceMessageId": source,
            **more,
        }

    def redrive(self):
        """Does what the stack's output RedriveCommand asks SQS for. moto's
        StartMessageMoveTask fails, so the messages are moved here, with body and
        attributes as they are and, as in AWS, with new ids."""
        command = options(self.stack.outputs["RedriveCommand"])
        source, destination = (
            self.sqs.get_queue_url(QueueName=command[name].rpartition(":")[2])["QueueUrl"]
            for name in ("--source-arn", "--destination-arn")
        )
        for message in self.messages(source):
            self.sqs.send_message(
                QueueUrl=destination,
                MessageBody=message["Body"],
                MessageAttributes=message.get("MessageAttributes", {}),
            )
            self.sqs.delete_message(QueueUrl=source, ReceiptHandle=message["ReceiptHandle"])


def strings(message):
    """Returns a message's attributes, which are all text."""
    attributes = message.get("MessageAttributes", {})
    assert {value["DataType"] for value in attributes.values()} <= {"String"}, attributes
    return {name: value["StringValue"] for name, value in attributes.items()}


def options(command):
    """Returns the options of a command line by name."""
    words = shlex.split(command)
    first = next(at for at, word in enumerate(words) if word.startswith("--"))
    return dict(zip(words[first::2], words[first + 1 :: 2], strict=True))


class PartialBatchResponse(unittest.TestCase):
    def test_responses_are_read_as_lambda_reads_them(self):
        for response, failed in [
            ('{"batchItemFailures": []}', ""),
            ('{"batchItemFailures": null}', ""),
            ("{}", ""),
            ("null", ""),
            ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', "b"),
            ('{"batchItemFailures": [{"itemIdentifier": "other"}]}', "ab"),
            ('{"batchItemFailures": [{"itemIdentifier": ""}]}', "ab"),
            ('{"batchItemFailures": [{"itemIdentifier": null}]}', "ab"),
            ('{"batchItemFailures": [{"itemId": "b"}]}', "ab"),
            ('{"errorType": "Panic", "errorMessage": "…"}', "ab"),
            ("{", "ab"),
            ("", "ab"),
        ]:
            with self.subTest(response):
                self.assertEqual(failed_ids({"a", "b"}, response, is_partial=True), set(failed))

    def test_without_the_setting_a_batch_succeeds_or_fails_as_one(self):
        named = '{"batchItemFailures": [{"itemIdentifier": "b"}]}'
        self.assertEqual(failed_ids({"a", "b"}, named, is_partial=False), set())
        error = '{"errorType": "Panic"}'
        self.assertEqual(failed_ids({"a", "b"}, error, is_partial=False), {"a", "b"})


class StackWithARule(Deployed):
    parameters = {"EventSource": "com.example.maintenance"}

    def test_its_settings_are_consistent(self):
        configuration = self.stack.function_configuration
        mapping = self.stack.event_source_mapping
        work = self.stack.queue_attributes(self.work)
        dead_letters = self.stack.queue_attributes(self.dead_letters)

        self.assertEqual(mapping["EventSourceArn"], work["QueueArn"])
        self.assertEqual(mapping["FunctionResponseTypes"], ["ReportBatchItemFailures"])
        # Lambda's rules for a mapping, and its advice for the queue of one.
        self.assertTrue(
            mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1
        )
        self.assertGreaterEqual(
            int(work["VisibilityTimeout"]),
            6 * configuration["Timeout"] + mapping["MaximumBatchingWindowInSeconds"],
        )
        redrive = json.loads(work["RedrivePolicy"])
        self.assertEqual(redrive["deadLetterTargetArn"], dead_letters["QueueArn"])
        self.assertGreaterEqual(redrive["maxReceiveCount"], 5)
        # The message must not expire before its last delivery.
        self.assertLess(
            redrive["maxReceiveCount"] * int(work["VisibilityTimeout"]),
            int(work["MessageRetentionPeriod"]),
        )
        self.assertGreaterEqual(
            int(dead_letters["MessageRetentionPeriod"]), int(work["MessageRetentionPeriod"])
        )
        self.assertEqual(
            self.stack.function_properties["DeadLetterConfig"]["TargetArn"],
            dead_letters["QueueArn"],
        )
        own = configuration["Environment"]["Variables"]
        self.assertEqual(own["WORK_QUEUE_URL"], self.work)
        self.assertEqual(own["DEAD_LETTER_QUEUE_URL"], self.dead_letters)
        # The mapping reads the queue with the function's role.
        for action in "ReceiveMessage", "DeleteMessage", "GetQueueAttributes":
            self.assertTrue(self.stack.permits(f"sqs:{action}", work["QueueArn"]), action)
        # moto lets anybody send; in AWS it takes these statements.
        for queue in work, dead_letters:
            [statement] = [
                statement
                for statement in json.loads(queue["Policy"])["Statement"]
                if statement["Effect"] == "Allow"
            ]
            statement.pop("Sid")
            self.assertEqual(
                statement,
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue["QueueArn"],
                    "Condition": {"ArnEquals": {"aws:SourceArn": self.stack.outputs["RuleArn"]}},
                },
            )

    def test_an_event_of_the_rule_is_processed(self):
        self.seed(request(1, assets(*range(250))))
        self.put_event("com.example.maintenance", "Assets Decommissioned")
        self.assert_counts(work=1, dead_letters=0)

        self.mapping.deliver_all()

        self.assertEqual(self.mapping.responses(), [{"batchItemFailures": []}])
        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_the_rule_ignores_other_events(self):
        self.put_event("com.example.maintenance", "Assets Commissioned")
        self.put_event("com.example.operations", "Assets Decommissioned")
        self.assert_counts(work=0, dead_letters=0)

    def put_event(self, source, detail_type):
        put = self.stack.client("events").put_events(
            Entries=[
                {
                    "Source": source,
                    "DetailType": detail_type,
                    "Detail": as_text(request(1, assets(*range(250)))),
                }
            ]
        )
        self.assertEqual(put["FailedEntryCount"], 0)

    def test_the_first_request_is_as_the_output_says(self):
        self.seed(request(1, assets(1)))
        command = options(self.stack.outputs["FirstRequestCommand"])
        body = command["--message-body"]
        for placeholder, real in ("PROJECT_ID", project(1)), ("ASSET_ID", assets(1)[0]):
            self.assertIn(placeholder, body)
            body = body.replace(placeholder, real)
        self.sqs.send_message(QueueUrl=command["--queue-url"], MessageBody=body)

        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_of_ten_messages_the_dead_letters_name_exactly_what_failed(self):
        for number in range(1, 6):
            self.seed(request(number, assets(*range(number * 10, number * 10 + 4))))
        [broken] = assets(22)
        self.fault(f"disassociate:asset={broken}:asset-error=INTERNAL_FAILURE")
        bodies = {
            "one": request(1, assets(10, 11)),
            "the same project, an asset twice": request(1, assets(12, 13, 13)),
            "half failing": request(2, assets(20, 21, 22, 23)),
            "bad ids": request(3, [*assets(30, 31), "PUMP-7", "../32", *assets(32, 33)]),
            "no such project": request(9, assets(90, 91)),
            "text": "decommission the press line",
            "no request": '{"press": "line"}',
            "bad project": json.dumps({"projectId": "..", "assetIds": assets(40)}),
            "an event": rule_event(1, request(4, assets(40, 41, 42, 43))),
            "a dead letter": request(5, assets(50, 51, 52, 53), errors=[]),
        }
        ids = dict(zip(bodies, self.send(*bodies.values()), strict=True))

        self.mapping.deliver_all()

        self.assertEqual(self.mapping.responses(), [{"batchItemFailures": []}])
        done = {project(number): [] for number in range(1, 6)}
        self.assertEqual(self.projects(), {**done, project(2): [broken]})
        self.assert_counts(work=0, dead_letters=6)
        self.assertEqual(
            [
                operation
                for operation, parameters in self.read("iotsitewise")
                if parameters["projectId"] == project(9)
            ],
            ["BatchDisassociateProjectAssets", "ListProjectAssets", "DescribeProject"],
        )

        expected = "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0"
        missing = f"Project {project(9)} can't be found."
        dead_letters = self.written_dead_letters()
        # How an unreadable message is worded is not part of the contract.
        for name in "text", "no request", "bad project":
            body, attributes = dead_letters.pop(ids[name])
            self.assertEqual(body, bodies[name])
            text = attributes["ErrorMessage"]
            self.assertIn("expected", text)
            more = {"ProjectId": ".."} if name == "bad project" else {}
            self.assertEqual(attributes, self.attributes(ids[name], "InvalidRequest", text, **more))
        self.assertEqual(
            dead_letters,
            {
                ids["half failing"]: self.dead_letter(
                    2, ids["half failing"], (broken, "INTERNAL_FAILURE", "Simulated failure.")
                ),
                ids["bad ids"]: self.dead_letter(
                    3,
                    ids["bad ids"],
                    *((asset, "InvalidAssetId", expected) for asset in ("PUMP-7", "../32")),
                ),
                ids["no such project"]: self.dead_letter(
                    9,
                    ids["no such project"],
                    *((asset, "ResourceNotFoundException", missing) for asset in assets(90, 91)),
                ),
            },
        )

    def test_messages_wait_out_an_outage(self):
        # More than one ReceiveMessage gives.
        numbers = range(1, 13)
        for number in numbers:
            self.seed(request(number, assets(number)))
        ids = self.send(*(request(number, assets(number)) for number in numbers))
        self.fault("disassociate:status=500")
        for _ in range(3):
            self.mapping.deliver_all()
            self.assert_counts(work=12, dead_letters=0)
            self.mapping.end_visibility_timeout()
        self.assertEqual([self.mapping.failed_ids(at) for at in range(3)], [set(ids)] * 3)
        self.assertEqual(self.projects(), {project(number): assets(number) for number in numbers})

        self.clear_faults()
        self.mapping.deliver_all()

        self.assertEqual(self.mapping.responses()[3:], [{"batchItemFailures": []}])
        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_5000_assets_are_processed_in_parts_through_the_work_queue(self):
        wanted = assets(*range(5000))
        self.seed(request(1, wanted))
        self.send(request(1, wanted))

        self.mapping.deliver()
        # The request is acknowledged, its five parts wait, no asset is gone yet.
        self.assertEqual(self.mapping.responses(), [{"batchItemFailures": []}])
        self.assert_counts(work=5, dead_letters=0)
        self.assertEqual(self.calls(), [])
        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)
        parts = [
            json.loads(record["body"])["assetIds"]
            for records, _ in self.mapping.invocations[1:]
            for record in records
        ]
        self.assertEqual([len(part) for part in parts], [1000] * 5)
        self.assertEqual(sorted(asset for part in parts for asset in part), wanted)
        calls = [parameters["assetIds"] for _, parameters in self.read("iotsitewise")]
        self.assertEqual([len(call) for call in calls], [100] * 50)
        self.assertEqual(sorted(asset for call in calls for asset in call), wanted)

    def test_a_redriven_dead_letter_is_processed(self):
        self.seed(request(1, assets(1, 2, 3)))
        [broken] = assets(2)
        self.fault(f"disassociate:asset={broken}:asset-error=INTERNAL_FAILURE")
        self.send(request(1, assets(1, 2, 3)))
        self.mapping.deliver_all()
        self.assert_counts(work=0, dead_letters=1)
        self.assertEqual(self.projects(), {project(1): [broken]})

        self.clear_faults()
        self.redrive()
        self.assert_counts(work=1, dead_letters=0)
        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_a_failed_asynchronous_invocation_is_processed_after_a_redrive(self):
        # moto does not run the code: Lambda would try three times, then put the
        # event in the function's dead-letter queue.
        wanted = assets(1, 2, 3)
        event = as_text(rule_event(1, request(1, wanted)))
        self.seed(request(1, wanted))
        # Neither processed nor stored in a queue: only Lambda has the event.
        self.fault("disassociate:status=500")
        self.wire["sqs"].refuse_with = 503
        error = self.invoke(event)
        self.assertEqual(error["errorType"], "NotStored")
        self.assertEqual(self.projects(), {project(1): wanted})
        self.assert_counts(work=0, dead_letters=0)
        self.wire["sqs"].refuse_with = None
        self.clear_faults()
        self.lambda_dead_letter(event, error["errorMessage"])
        # A direct invocation fails only where the process does.
        direct = assets(4, 5)
        self.seed(request(2, direct))
        self.lambda_dead_letter(as_text(request(2, direct)), "Task timed out after 60.00 seconds")

        self.redrive()
        self.assert_counts(work=2, dead_letters=0)
        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def lambda_dead_letter(self, event, error):
        """Writes what Lambda writes of a failed asynchronous invocation."""
        self.sqs.send_message(
            QueueUrl=self.dead_letters,
            MessageBody=event,
            MessageAttributes={
                "RequestID": {"DataType": "String", "StringValue": str(uuid.uuid4())},
                "ErrorCode": {"DataType": "Number", "StringValue": "200"},
                "ErrorMessage": {"DataType": "String", "StringValue": error[:1024]},
            },
        )

    def test_every_sample_of_a_queue_event_is_processed(self):
        for name in [
            "sqs",
            "sqs-250-assets",
            "sqs-several-requests",
            "sqs-eventbridge-envelope",
            "sqs-sns-envelope",
            "sqs-dead-letter",
            "sqs-fifo",
            "pipes",
        ]:
            with self.subTest(name):
                self.seed(sample(name))
                self.assertEqual(self.invoke(sample(name)), {"batchItemFailures": []})
                self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_every_sample_of_another_event_gets_a_report(self):
        for name in ["direct", "direct-client-token", "eventbridge", "sns"]:
            with self.subTest(name):
                self.seed(sample(name))
                report = self.invoke(sample(name))
                self.assertTrue(report.pop("requestId"))
                self.assertEqual(
                    report,
                    {
                        "projectId": json.loads(sample("direct"))["projectId"],
                        "status": "succeeded",
                        "assets": {
                            "requested": 3,
                            "duplicates": 0,
                            "disassociated": 3,
                            "absent": 0,
                            "rejected": 0,
                            "unfinished": 0,
                            "queued": 0,
                        },
                        "calls": 1,
                        "failures": [],
                    },
                )
                self.assert_projects_are_empty()

    def test_a_large_direct_request_is_accepted_and_processed_in_parts(self):
        event = sample("direct-1200-assets")
        self.seed(event)
        report = self.invoke(event)
        self.assertEqual(report["status"], "accepted")
        self.assertEqual(report["assets"]["queued"], 1200)
        parts = [json.loads(message["Body"])["assetIds"] for message in self.messages(self.work)]
        self.assertEqual(sorted(len(part) for part in parts), [200, 1000])

        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_one_lost_response_is_retried_with_the_same_token(self):
        # Not through a recorder, which would not pass a broken response on.
        self.start_function(sitewise=self.simulator)
        for fault in ["reset", "reset-after", "truncate", "garbage", "throttle", "status=500"]:
            with self.subTest(fault):
                self.seed(sample("sqs"))
                http("DELETE", f"{self.simulator}/_simulator/calls")
                self.fault(f"disassociate:first=1:{fault}")
                self.assertEqual(self.invoke(sample("sqs")), {"batchItemFailures": []})
                self.assert_projects_are_empty()
                calls = self.calls()
                self.assertEqual(len(calls), 2)
                self.assertEqual(len({call["clientToken"] for call in calls}), 1)

    def test_an_unrecognized_payload_is_an_error_and_the_process_goes_on(self):
        for payload in [sample("bad-unknown-event"), "{}", "[1]", '"text"', "null"]:
            with self.subTest(payload):
                error = self.invoke(payload)
                self.assertEqual(error["errorType"], "UnrecognizedEvent")
                self.assertIn("expected an SQS event", error["errorMessage"])
        self.seed(sample("sqs"))
        self.assertEqual(self.invoke(sample("sqs")), {"batchItemFailures": []})
        self.assert_projects_are_empty()
        # All by one process.
        cold_starts = [line["cold_start"] for line in self.summaries()]
        self.assertEqual(cold_starts, [True] + [False] * 5)

    def test_the_reader_refuses_invalid_requests(self):
        # Asset 3 is not in the project: a read follows the call. Asset 4 stays.
        self.seed(request(1, assets(1, 2, 4)))
        self.send(request(1, assets(1, 2, 1, 3) + ["PUMP-7"]))
        self.mapping.deliver_all()
        [call, read] = self.wire["iotsitewise"].requests
        [letter] = self.wire["sqs"].requests
        body = json.loads(call.body)
        entries = json.loads(letter.body)["Entries"]

        def wrong(service, request, expected, **changes):
            with self.subTest(expected), self.assertRaisesRegex(ValueError, expected):
                READERS[service].read(dataclasses.replace(request, **changes))

        def with_body(**changes):
            return json.dumps({**body, **changes}).encode()

        def with_header(request, **changes):
            return {
                **request.headers,
                **{key.replace("_", "-"): value for key, value in changes.items()},
            }

        path = call.path.replace(project(1), "..")
        wrong("iotsitewise", call, "GET /projects/.*: no operation", method="GET")
        wrong("iotsitewise", call, "projectId: '..' does not match", path=path)
        wrong("iotsitewise", call, "signature .* not", body=call.body + b" ")
        wrong("iotsitewise", call, "signature .* not", path=call.path.replace("1/", "2/"))
        wrong("iotsitewise", call, "signature", headers=with_header(call, host="127.0.0.1:1"))
        wrong(
            "iotsitewise",
            call,
            "session token",
            headers=with_header(call, x_amz_security_token="t"),
        )
        wrong("iotsitewise", call, "unknown ..force", body=with_body(force=True))
        wrong("iotsitewise", call, "length 101", body=with_body(assetIds=assets(*range(101))))
        wrong("iotsitewise", call, "length 0", body=with_body(assetIds=[]))
        wrong(
            "iotsitewise",
            call,
            r"assetIds\[0\]: 'PUMP-7' does not",
            body=with_body(assetIds=["PUMP-7"]),
        )
        wrong("iotsitewise", call, "clientToken: length 4", body=with_body(clientToken="four"))
        wrong("iotsitewise", call, "Invalid type", body=with_body(clientToken=7))
        page = read.path.replace("maxResults=250", "maxResults=251")
        wrong("iotsitewise", read, "maxResults: value 251", path=page)
        wrong("iotsitewise", read, "unknown ..force", path=f"{read.path}&force=true")
        wrong("iotsitewise", read, "signature .* not", path=f"{read.path}&nextToken=t")
        wrong("iotsitewise", read, "a GET with a body", body=b"{}")
        missing = json.dumps({"clientToken": body["clientToken"]}).encode()
        wrong("iotsitewise", call, 'Missing required .*: "assetIds"', body=missing)
        eleven = json.dumps({"QueueUrl": self.dead_letters, "Entries": entries * 11}).encode()
        wrong("sqs", letter, "11 entries", body=eleven)
        wrong("sqs", letter, 'Missing required .*: "QueueUrl"', body=b'{"Entries": []}')
        target = with_header(letter, x_amz_target="AmazonSQS.SendNothing")
        wrong("sqs", letter, "x-amz-target", headers=target)


class StackForAPortal(Deployed):
    """A portal of 25 projects, with an asset each."""

    parameters = {"PortalArns": f"arn:aws:iotsitewise:{REGION}:{ACCOUNT}:portal/{portal(1)}"}
    its_projects = [project(number) for number in range(1, 26)]
    simulator_arguments = [
        *("--portal", f"{portal(1)}={','.join(its_projects)}"),
        *(f"--project={project(number)}={asset(number)}" for number in range(1, 26)),
    ]
    request = {"portalId": portal(1), "allProjects": True}

    def dry_run(self):
        """Returns how many assets the portal's projects have."""
        report = json.loads(http_text("POST", self.function, {**self.request, "dryRun": True}))
        self.assertEqual(report["status"], "succeeded", report)
        self.assertEqual([found["projectId"] for found in report["projects"]], self.its_projects)
        return sum(found["assets"] for found in report["projects"])

    def test_a_portal_is_emptied_to_the_end(self):
        self.assertEqual(self.dry_run(), 25)
        self.assertEqual(self.calls(), [])
        message_ids = self.send(self.request)

        self.mapping.deliver()
        self.assertEqual(self.mapping.responses(), [{"batchItemFailures": []}])
        self.assert_counts(work=25, dead_letters=0)
        self.mapping.deliver_all()

        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)
        self.assertEqual(self.dry_run(), 0)
        parts = [json.loads(record["body"]) for records, _ in self.mapping.invocations[1:] for record in records]
        self.assertEqual(sorted(part["projectId"] for part in parts), self.its_projects)
        for part in parts:
            self.assertEqual(part["sitewiseDisassociatorPart"]["of"], message_ids[0])

    def test_the_log_says_what_was_disassociated(self):
        self.send(self.request)
        self.mapping.deliver_all()
        lines = [line for line in self.log() if line["message"] == "assets disassociated"]
        self.assertEqual(len(lines), 25)
        logged = {line["project_id"]: line for line in lines}
        ids = {
            json.loads(record["body"])["projectId"]: record["messageId"]
            for records, _ in self.mapping.invocations[1:]
            for record in records
        }
        for number in range(1, 26):
            line = logged[project(number)]
            self.assertEqual(line["asset_ids"], [asset(number)])
            self.assertEqual(line["message_ids"], [ids[project(number)]])
            self.assertIs(line["listed"], True)

    def test_without_the_right_to_the_portal_the_message_stays(self):
        self.fault("list-projects:status=403:type=AccessDeniedException")
        self.send(self.request)
        self.mapping.deliver()
        self.assert_counts(work=1, dead_letters=0)
        codes = [line["code"] for line in self.log() if line["level"] == "WARN"]
        self.assertEqual(codes, ["AccessDeniedException"])
        event = [line for line in self.log() if line["message"] == "event processed"]
        self.assertEqual(event[0]["RequestsUnfinished"], 1)


class ImpatientStack(Deployed):
    parameters = {
        "MaxReceiveCount": 5,
        "FanOutAssets": 100,
        "LogLevel": "ERROR",
        "MetricsNamespace": "Plant",
        "ProjectArns": ",".join(
            f"arn:aws:iotsitewise:{REGION}:{ACCOUNT}:project/{project(number)}" for number in (1, 2)
        ),
    }

    def test_sqs_moves_what_never_succeeds_to_the_dead_letter_queue_unchanged(self):
        for number in 1, 2:
            self.seed(request(number, assets(number)))
        self.fault(f"disassociate:project={project(1)}:status=500")
        bodies = [as_text(request(1, assets(1))), as_text(request(1, assets(1, 1)))]
        *failing, _ = self.send(*bodies, request(2, assets(2)))
        for _ in range(5):
            self.mapping.deliver_all()
            self.assert_counts(work=2, dead_letters=0)
            self.mapping.end_visibility_timeout()
        self.assertEqual([self.mapping.failed_ids(at) for at in range(5)], [set(failing)] * 5)
        self.assertEqual(self.projects(), {project(1): assets(1), project(2): []})

        # SQS's own redrive policy, on the next attempt to receive them.
        self.assertFalse(self.mapping.deliver())

        self.assert_counts(work=0, dead_letters=2)
        moved = {
            message["MessageId"]: (message["Body"], strings(message))
            for message in self.messages(self.dead_letters)
        }
        self.assertEqual(
            moved, {key: (body, {}) for key, body in zip(failing, bodies, strict=True)}
        )
        # The function has written none of them.
        self.assertEqual(self.wire["sqs"].requests, [])

        self.clear_faults()
        self.redrive()
        self.mapping.deliver_all()
        self.assert_projects_are_empty()
        self.assert_counts(work=0, dead_letters=0)

    def test_its_parameters_reach_the_function(self):
        self.seed(request(1, assets(*range(101))))
        self.send(request(1, assets(*range(101))))
        self.mapping.deliver()
        self.assert_counts(work=2, dead_letters=0)
        [line] = self.log()
        # The line with the metrics passes any level.
        self.assertEqual(line["level"], "ERROR")
        self.assertEqual(line["service"], STACK_NAME)
        [metrics] = line["_aws"]["CloudWatchMetrics"]
        self.assertEqual(metrics["Namespace"], "Plant")
        self.assertEqual(metrics["Dimensions"], [["service"]])


if __name__ == "__main__":
    emulator.main()
