#!/usr/bin/env python3
"""Drives the built release bootstrap through the Lambda Runtime API.

The other side of that API is AWS's own runtime interface emulator, as the
package aws-sam-cli carries it: nothing of ours decides here what an invocation
or an answer is. SiteWise and SQS are the simulator, a program of its own.
"""

import json

import emulated
from emulated import ROOT, http

DEAD_LETTERS = "dead-letters"
WORK = "work"


def sample(name):
    return (ROOT / "events" / f"{name}.json").read_text()


def request_of(name):
    return json.loads(json.loads(sample(name))["Records"][0]["body"])


class Bootstrap(emulated.EmulatedFunction):
    def setUp(self):
        self.start_simulator("--queue", DEAD_LETTERS, "--queue", WORK)
        queue = f"{self.simulator}/000000000000"
        self.start_function(
            {
                "AWS_REGION": "eu-west-1",
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_ENDPOINT_URL": self.simulator,
                "AWS_LAMBDA_FUNCTION_NAME": "sitewise-disassociator",
                "AWS_LAMBDA_FUNCTION_TIMEOUT": "30",
                "DEAD_LETTER_QUEUE_URL": f"{queue}/{DEAD_LETTERS}",
                "WORK_QUEUE_URL": f"{queue}/{WORK}",
            }
        )

    def messages(self, queue):
        return http("GET", f"{self.simulator}/_simulator/queues/{queue}")

    def test_records_are_acknowledged_and_their_assets_gone(self):
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
        self.assertEqual(self.messages(DEAD_LETTERS), [])
        self.assertLessEqual(max(len(call["assetIds"]) for call in self.calls()), 100)

    def test_other_events_get_a_report(self):
        for name in ["direct", "direct-client-token", "eventbridge", "sns"]:
            with self.subTest(name):
                self.seed(sample(name))
                report = self.invoke(sample(name))
                self.assertTrue(report.pop("requestId"))
                self.assertEqual(
                    report,
                    {
                        "projectId": request_of("sqs")["projectId"],
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

    def test_bad_records_become_dead_letters_and_good_ones_are_done(self):
        name = "bad-sqs-records"
        self.seed(sample(name))
        self.assertEqual(self.invoke(sample(name)), {"batchItemFailures": []})
        self.assert_projects_are_empty()
        records = json.loads(sample(name))["Records"]
        letters = self.messages(DEAD_LETTERS)
        self.assertEqual(
            {letter["attributes"]["SourceMessageId"] for letter in letters},
            {records[index]["messageId"] for index in (1, 2, 3, 4)},
        )
        for letter in letters:
            self.assertTrue(letter["attributes"]["RequestID"])
            self.assertTrue(letter["attributes"]["ErrorMessage"])

    def test_only_the_record_of_a_failing_project_is_named(self):
        name = "sqs-several-requests"
        records = json.loads(sample(name))["Records"]
        failing = records[2]
        project = json.loads(failing["body"])["projectId"]
        self.seed(sample(name))
        self.fault(f"disassociate:project={project}:status=403")
        self.assertEqual(
            self.invoke(sample(name)),
            {"batchItemFailures": [{"itemIdentifier": failing["messageId"]}]},
        )
        remaining = {key: len(assets) for key, assets in self.projects().items()}
        self.assertEqual(remaining.pop(project), 2)
        self.assertEqual(set(remaining.values()), {0})

    def test_lost_replies_and_resets_are_survived_with_one_token(self):
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

    def test_a_large_request_is_done_in_parts(self):
        event = sample("direct-1200-assets")
        self.seed(event)
        report = self.invoke(event)
        self.assertEqual(report["status"], "accepted")
        self.assertEqual(report["assets"]["queued"], 1200)
        parts = self.messages(WORK)
        self.assertEqual([len(json.loads(part["body"])["assetIds"]) for part in parts], [1000, 200])
        for part in parts:
            record = {
                "messageId": part["id"],
                "eventSource": "aws:sqs",
                "body": part["body"],
            }
            answer = self.invoke(json.dumps({"Records": [record]}))
            self.assertEqual(answer, {"batchItemFailures": []})
        self.assert_projects_are_empty()
        self.assertEqual(len(self.messages(WORK)), 2)

    def test_a_payload_that_is_no_event_is_an_error_and_the_process_lives_on(self):
        for payload in [sample("bad-unknown-event"), "{}", "[1]", '"text"', "null"]:
            with self.subTest(payload):
                answer = self.invoke(payload)
                self.assertEqual(answer["errorType"], "UnrecognizedEvent")
                self.assertIn("expected an SQS event", answer["errorMessage"])
        self.seed(sample("sqs"))
        self.assertEqual(self.invoke(sample("sqs")), {"batchItemFailures": []})
        self.assert_projects_are_empty()

    def test_each_log_line_is_one_json_object_with_powertools_keys(self):
        self.seed(sample("sqs"))
        nasty = "\r\n\u2028\x1b[31m canary"
        bodies = [json.loads(sample("sqs"))["Records"][0]["body"], nasty, "{"]
        records = [
            {"messageId": f"m-{index}", "eventSource": "aws:sqs", "body": body}
            for index, body in enumerate(bodies)
        ]
        for _ in range(2):
            self.invoke(json.dumps({"Records": records}))
        lines = self.log()
        for line in lines:
            self.assertEqual(line["service"], "sitewise-disassociator")
            self.assertRegex(line["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
            self.assertIn(line["level"], ["INFO", "WARN"])
            self.assertTrue(line["function_request_id"])
            self.assertNotIn("canary", json.dumps(line))
        summaries = [line for line in lines if line["message"] == "event worked off"]
        self.assertEqual([line["cold_start"] for line in summaries], [True, False])
        self.assertEqual([line["AssetsDisassociated"] for line in summaries], [3, 3])
        failures = [line for line in lines if line["message"] == "assets or requests failed"]
        self.assertEqual(
            [(line["code"], line["count"]) for line in failures], [("InvalidRequest", 2)] * 2
        )


if __name__ == "__main__":
    emulated.install_requirements()
    emulated.main()
