#!/usr/bin/env python3
"""Tests the release bootstrap with the events that SAM generates for every service
(`sam local generate-event`)."""

import json

import emulator
from events import asset, message_id, project, request, sqs_event, sqs_record

emulator.install_requirements()

from samcli.lib.generated_sample_events.events import Events  # noqa: E402

NOTHING_FAILED = {"batchItemFailures": []}

# The problem of the request in each event of a kind that the function accepts. That of
# the queue is in the dead letter alone.
PROBLEMS = {
    ("cloudwatch", "scheduled-event"): "projectId: missing; assetIds: missing",
    ("sns", "notification"): "expected a JSON object: expected value at line 1 column 1",
    ("sqs", "receive-message"): "expected a JSON object: expected value at line 1 column 1",
}


def generated_events():
    """Returns SAM's events by service and kind."""
    events = Events()
    generated = {}
    for service, kinds in events.event_mapping.items():
        for kind, mapping in kinds.items():
            defaults = {tag: option["default"] for tag, option in mapping["tags"].items()}
            generated[service, kind] = json.loads(events.generate_event(service, kind, defaults))
    return generated


class GeneratedEvents(emulator.EmulatedFunction):
    def setUp(self):
        self.events = generated_events()
        self.assertGreater(len(self.events), 60)
        self.start_simulator()
        self.start_function(AWS_ENDPOINT_URL=self.simulator, **self.queue_variables())

    def test_a_generated_event_is_understood_or_refused_clearly(self):
        for name, event in self.events.items():
            with self.subTest(name):
                answer = self.invoke(event)
                if name not in PROBLEMS:
                    self.assertEqual("UnrecognizedEvent", answer["errorType"])
                    self.assertRegex(answer["errorMessage"], "expected an SQS event .*, found ")
                    continue
                letter = self.queued(self.DEAD_LETTERS)[-1]
                self.assertEqual(PROBLEMS[name], letter["attributes"]["ErrorMessage"])
                if answer != NOTHING_FAILED:
                    self.assertEqual(PROBLEMS[name], answer["failures"][0]["message"])
        self.assertEqual(len(PROBLEMS), len(self.queued(self.DEAD_LETTERS)))
        self.assertEqual([], self.calls())

    def test_the_neighbours_of_a_generated_event_are_done(self):
        for number, (name, event) in enumerate(self.events.items()):
            with self.subTest(name):
                ids = [asset(2 * number + 1), asset(2 * number + 2)]
                self.seed(request(1, ids))
                before, after = (request(1, [one]) for one in ids)
                records = enumerate([before, event, after], 1)
                answer = self.invoke(sqs_event(*(sqs_record(*record) for record in records)))
                self.assertEqual(NOTHING_FAILED, answer)
                self.assert_projects_are_empty()
                letter = self.queued(self.DEAD_LETTERS)[-1]
                self.assertEqual(event, json.loads(letter["body"]))
                self.assertEqual(message_id(2), letter["attributes"]["SourceMessageId"])
                self.assertRegex(letter["attributes"]["ErrorMessage"], "expected|missing")


if __name__ == "__main__":
    emulator.main()
