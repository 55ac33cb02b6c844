#!/usr/bin/env python3
"""Tests the release bootstrap's log lines and the metrics in them, as CloudWatch
and Lambda's level filter read them."""

import json
import re

import emulator
from emulator import ROOT
from events import (
    asset,
    message_id,
    project,
    request,
    rule_event,
    sqs_event,
    sqs_record,
    topic_event,
)

emulator.install_requirements()

import jsonschema  # noqa: E402

NAMESPACE = "Plant 7/SiteWise"
SERVICE = "decommissioning"
LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]

# The emulator's own lines between the function's.
EMULATOR_LINE = re.compile(
    r"START RequestId: |END RequestId: |REPORT RequestId: "
    r"|\d+ \w{3} \d{4} [\d:,]+ \[(INFO|WARN(ING)?|ERROR)\] \(rapid\) "
)

# "Specification: Embedded metric format", Amazon CloudWatch User Guide.
METRICS_DOCUMENT = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_600_000_000_000},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                    "minItems": 1,
                                    "maxItems": 30,
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1},
                                        "Unit": {"enum": ["Count", "Milliseconds", "Seconds"]},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}

# Most bytes of a log event, and of a document in one (same page).
LARGEST_DOCUMENT = 262_144


def canaries():
    """Yields texts that must not end a line or an object, nor be logged."""
    for text in ["\r\n", "\n{", '"}', "\u2028", "\u2029", "\x1b[31m", "\x00", "\x7f", "\ud83d"]:
        yield f"canary{text}canary"


def metrics_of(document):
    """Returns the values of a metrics document as CloudWatch extracts them."""
    jsonschema.validate(document, METRICS_DOCUMENT)
    assert len(json.dumps(document).encode()) <= LARGEST_DOCUMENT
    values = {}
    for directive in document["_aws"]["CloudWatchMetrics"]:
        for dimension in {name for names in directive["Dimensions"] for name in names}:
            assert isinstance(document[dimension], str), dimension
        for metric in directive["Metrics"]:
            value = document[metric["Name"]]
            numbers = value if isinstance(value, list) else [value]
            assert 1 <= len(numbers) <= 100, metric
            assert all(type(number) in (int, float) for number in numbers), metric
            values[metric["Name"]] = value
    return values


class Telemetry(emulator.EmulatedFunction):
    def setUp(self):
        self.start_simulator()

    def cold_start(self, **variables):
        self.start_function(
            **{
                "AWS_ENDPOINT_URL": self.simulator,
                "POWERTOOLS_SERVICE_NAME": SERVICE,
                "POWERTOOLS_METRICS_NAMESPACE": NAMESPACE,
                **self.queue_variables(),
                **variables,
            }
        )

    def lines_of(self, event):
        """Invokes the function, and returns its new log lines."""
        before = len(self.lines())
        self.invoke(event)
        return self.lines()[before:]

    def lines(self):
        """Returns every line of the function. Whatever ends a line for CloudWatch's
        agents ends one here, so no text of an event may contain it."""
        self.output.seek(0)
        lines = []
        for line in self.output.read().splitlines():
            if line.strip() and not EMULATOR_LINE.match(line):
                lines.append(json.loads(line))
        return lines

    def summary(self, lines):
        """Returns the one line that sums up an invocation."""
        [line] = [line for line in lines if line["message"] == "event processed"]
        return line

    def metrics_of_event(self, event):
        document = self.summary(self.lines_of(event))
        [directive] = document["_aws"]["CloudWatchMetrics"]
        self.assertEqual(directive["Namespace"], NAMESPACE)
        self.assertEqual(directive["Dimensions"], [["service"]])
        self.assertEqual(document["service"], SERVICE)
        values = metrics_of(document)
        self.latencies = values.pop("CallLatency", [])
        self.assertTrue(all(0 <= latency < 60_000 for latency in self.latencies))
        return {name: value for name, value in values.items() if value}

    def test_the_metrics_count_every_outcome(self):
        self.cold_start()
        self.seed(request(1, [asset(number) for number in range(150)]))
        self.fault(f"disassociate:asset={asset(7)}:asset-error=INTERNAL_FAILURE")
        event = sqs_event(
            sqs_record(1, request(1, [asset(number) for number in range(120)])),
            sqs_record(2, request(1, [asset(120), asset(120), "no-id"])),
            sqs_record(3, "no request"),
        )
        self.assertEqual(
            self.metrics_of_event(event),
            {
                "MessagesReceived": 3,
                "AssetsRequested": 122,
                "AssetsDisassociated": 120,
                "AssetsRejected": 2,
                # 100 and the two tails' 21, and the failing asset twice more
                "Calls": 4,
                # The project's assets, after each call that failed for one
                "Reads": 3,
                "DeadLetters": 3,
                "ColdStart": 1,
            },
        )
        self.assertEqual(len(self.latencies), 7)

    def test_an_asset_that_is_not_in_its_project_counts_as_absent(self):
        self.cold_start()
        self.seed(request(1, [asset(1), asset(3)]))
        self.assertEqual(
            self.metrics_of_event(sqs_event(sqs_record(1, request(1, [asset(1), asset(2)])))),
            {
                "MessagesReceived": 1,
                "AssetsRequested": 2,
                "AssetsDisassociated": 1,
                "AssetsAbsent": 1,
                "Calls": 1,
                "Reads": 1,
                "ColdStart": 1,
            },
        )

    def test_a_cold_start_counts_once(self):
        self.cold_start()
        event = sqs_event(sqs_record(1, request(1, [asset(1)])))
        cold_starts = ["ColdStart" in self.metrics_of_event(event) for _ in range(3)]
        self.assertEqual(cold_starts, [True, False, False])

    def test_throttled_calls_are_counted_and_the_sdks_retries_are_not(self):
        self.cold_start()
        self.seed(request(1, [asset(1)]))
        event = sqs_event(sqs_record(1, request(1, [asset(1)])))
        self.fault("disassociate:first=1:throttle")
        self.fault("disassociate:first=1:status=500")
        self.assertEqual(
            self.metrics_of_event(event),
            {
                "MessagesReceived": 1,
                "AssetsRequested": 1,
                "AssetsDisassociated": 1,
                # One that was throttled, and one that the SDK has tried twice.
                "Calls": 2,
                "ThrottledCalls": 1,
                "ColdStart": 1,
            },
        )
        self.assertEqual(len(self.latencies), 2)

    def test_the_calls_of_a_throttled_service_are_counted(self):
        # In a fresh process: how many calls a warm one makes depends on when its
        # last ones were throttled, and so on how fast this machine is.
        self.cold_start()
        self.fault("disassociate:throttle")
        self.assertEqual(
            self.metrics_of_event(sqs_event(sqs_record(1, request(1, [asset(1)])))),
            {
                "MessagesReceived": 1,
                "MessagesRedelivered": 1,
                "AssetsRequested": 1,
                "AssetsUnfinished": 1,
                "Calls": 7,
                "ThrottledCalls": 7,
                "ColdStart": 1,
            },
        )

    def test_parts_and_messages_that_cannot_be_stored_are_counted(self):
        self.cold_start()
        large = request(1, [asset(number) for number in range(1200)])
        self.assertEqual(
            self.metrics_of_event(rule_event(1, large)),
            {
                "MessagesReceived": 1,
                "AssetsRequested": 1200,
                "AssetsQueued": 1200,
                "Parts": 2,
                "ColdStart": 1,
            },
        )
        self.fault(f"sqs:queue={self.DEAD_LETTERS}:status=403:type=AccessDenied")
        lines = self.lines_of(sqs_event(sqs_record(1, "no request")))
        values = metrics_of(self.summary(lines))
        self.assertEqual(values["NotStored"], 1)
        self.assertEqual(values["MessagesRedelivered"], 1)
        errors = [line for line in lines if line["level"] == "ERROR"]
        self.assertEqual(
            [(line["message"], line["code"]) for line in errors],
            [("a dead letter or a part could not be stored", "AccessDenied")],
        )

    def test_every_latency_is_in_a_document_of_at_most_a_hundred(self):
        self.cold_start(CALL_CONCURRENCY="64", FAN_OUT_ASSETS="25000")
        ids = [asset(number) for number in range(12_000)]
        self.seed(request(1, ids))
        lines = self.lines_of(request(1, ids))
        documents = [metrics_of(line) for line in lines if "_aws" in line]
        self.assertEqual([len(values["CallLatency"]) for values in documents], [100, 20])
        self.assertEqual([values.get("Calls") for values in documents], [120, None])

    def test_projects_are_properties_and_never_dimensions(self):
        self.cold_start()
        one = self.summary(self.lines_of(sqs_event(sqs_record(1, request(1, [asset(1)])))))
        self.assertEqual(one["project_id"], project(1))
        several = sqs_event(sqs_record(1, request(1, [asset(1)])), sqs_record(2, request(2, [asset(1)])))
        self.assertNotIn("project_id", self.summary(self.lines_of(several)))

    def test_a_single_message_is_named_on_every_line_of_its_invocation(self):
        self.cold_start()
        self.fault("disassociate:status=403:type=AccessDeniedException")
        for event in [
            sqs_event(sqs_record(5, request(1, [asset(1)]))),
            rule_event(5, request(1, [asset(1)])),
            topic_event(5, request(1, [asset(1)])),
        ]:
            lines = self.lines_of(event)
            self.assertEqual(len(lines), 2)
            for line in lines:
                self.assertEqual(line["correlation_id"], message_id(5))
        lines = self.lines_of(
            sqs_event(sqs_record(6, request(1, [asset(1)])), sqs_record(7, request(2, [asset(1)])))
        )
        [failure, summary] = lines
        self.assertNotIn("correlation_id", summary)
        self.assertEqual(failure["first_message_id"], message_id(6))
        self.assertEqual(failure["first_project_id"], project(1))
        self.assertEqual(
            (failure["level"], failure["code"], failure["count"], failure["retryable"]),
            ("WARN", "AccessDeniedException", 2, True),
        )

    def test_a_payload_that_is_no_event_gets_an_error_line_and_a_summary(self):
        self.cold_start()
        [summary, error] = self.lines_of({"canary": 1})
        self.assertEqual((error["level"], error["code"]), ("ERROR", "UnrecognizedEvent"))
        self.assertEqual(metrics_of(summary)["ColdStart"], 1)

    def test_lambdas_level_filter_drops_no_line(self):
        event = sqs_event(sqs_record(1, "no request"))
        for least in LEVELS:
            with self.subTest(least):
                self.cold_start(AWS_LAMBDA_LOG_LEVEL=least, AWS_LAMBDA_LOG_FORMAT="JSON")
                lines = self.lines_of(event)
                # "If the level value field is invalid or missing, Lambda will
                # assign the log output the level INFO."
                kept = [
                    line
                    for line in lines
                    if LEVELS.index(line.get("level", "INFO")) >= LEVELS.index(least)
                ]
                self.assertEqual(kept, lines, "every line that is written passes the filter")
                self.assertEqual(metrics_of(self.summary(kept))["MessagesReceived"], 1)
                failures = [line for line in kept if line["message"].startswith("assets or")]
                self.assertEqual(len(failures), LEVELS.index(least) <= LEVELS.index("WARN"))

    def test_without_a_namespace_the_summary_has_the_numbers_without_metrics(self):
        event = sqs_event(sqs_record(1, request(1, [asset(1)])))
        self.cold_start(POWERTOOLS_METRICS_NAMESPACE="")
        line = self.summary(self.lines_of(event))
        self.assertNotIn("_aws", line)
        self.assertEqual(line["MessagesReceived"], 1)
        self.cold_start(POWERTOOLS_METRICS_NAMESPACE="", POWERTOOLS_LOG_LEVEL="WARN")
        self.assertEqual([line["level"] for line in self.lines_of(event)], ["WARN"])

    def test_no_text_of_an_event_is_logged_or_breaks_a_line(self):
        self.cold_start()
        for text in canaries():
            nasty = request(1, [asset(1), text], clientToken=text, note=text)
            record_ = {
                "messageId": text,
                "receiptHandle": text,
                "eventSource": "aws:sqs",
                "eventSourceARN": text,
                "attributes": {"MessageGroupId": text, text: text},
                "messageAttributes": {text: {"stringValue": text, "dataType": "String"}},
            }
            notification = topic_event(1, nasty)
            notification["Records"][0]["Sns"].update(MessageId=text, Subject=text, TopicArn=text)
            for event in [
                sqs_event({**record_, "body": text}),
                sqs_event({**record_, "body": json.dumps(nasty)}),
                sqs_event({**record_, "body": json.dumps({**nasty, "projectId": text})}),
                {**rule_event(1, nasty), "id": text, "detail-type": text, "source": text, text: text},
                rule_event(1, {**nasty, "projectId": text}),
                notification,
                nasty,
                {**nasty, "projectId": text},
                {text: text},
            ]:
                lines = self.lines_of(event)
                self.assertTrue(lines)
                for line in lines:
                    self.assertNotIn("canary", json.dumps(line))
                    self.assertEqual(line["service"], SERVICE)
                    self.assertRegex(
                        line["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"
                    )

    def test_the_documented_queries_fit_the_log_lines(self):
        self.cold_start()
        self.fault(f"disassociate:project={project(2)}:status=403:type=AccessDeniedException")
        self.seed(request(1, [asset(1)]))
        good, bad = sqs_record(1, request(1, [asset(1)])), sqs_record(2, "no request")
        lines = self.lines_of(sqs_event(good, bad))
        lines += self.lines_of(sqs_event(sqs_record(1, request(2, [asset(1)]))))
        keys = {key for line in lines for key in line}
        text = (ROOT / "docs" / "operations.md").read_text()
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        queries = [text for kind, text in blocks if not kind and text.startswith("filter ")]
        self.assertGreaterEqual(len(queries), 4)
        words = {"by", "and", "or", "as", "asc", "desc", "filter", "fields", "stats", "sort"}
        words |= {"sum", "latest", "bin", "ispresent", "5m"}
        for query in queries:
            messages = re.findall(r'message = "(.*?)"', query)
            for message in messages:
                self.assertIn(message, {line["message"] for line in lines})
            bare = re.sub(r'"[^"]*"', "", query)
            defined = set(re.findall(r" as (\w+)", bare))
            for name in set(re.findall(r"@?\b\w+", bare)) - words - defined:
                self.assertTrue(name in keys or name.startswith("@"), f"{name} in {query}")


if __name__ == "__main__":
    emulator.main()
