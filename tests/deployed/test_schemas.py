#!/usr/bin/env python3
"""Tests the JSON Schemas of events/schemas against the samples, their snapshots,
and the messages of the contract tests."""

import json
import unittest

import emulator
from emulator import ROOT
from events import SAMPLES

emulator.install_requirements()

import jsonschema  # noqa: E402

CORPUS = ROOT / "tests" / "contract" / "corpus"
SNAPSHOTS = ROOT / "tests" / "contract" / "snapshots"

REQUEST_FIELDS = {"projectId", "portalId", "assetIds", "allAssets", "allProjects"}


def schema(name):
    """Returns the validator of a schema, which is valid itself."""
    schema = json.loads((SAMPLES / "schemas" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def requests_in(value):
    """Returns the requests in JSON, wherever in it, also in strings that are JSON
    themselves."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    if isinstance(value, dict):
        if REQUEST_FIELDS & value.keys():
            return [value]
        value = list(value.values())
    if isinstance(value, list):
        return [request for element in value for request in requests_in(element)]
    return []


def corpus(name):
    """Returns the cases of a file whose body is one JSON object that `json` reads as
    the function does, with their requests."""
    for case in json.loads((CORPUS / f"{name}.json").read_text()):
        if any(words in case.get("problem", "") for words in ("duplicate field", "hex escape")):
            continue
        [request] = requests_in(case["body"])
        yield case["reason"], request


def snapshot(sample):
    """Returns the response to a sample."""
    text = (SNAPSHOTS / f"contract__samples__{sample.stem}.snap").read_text()
    _, _, content = text.split("---\n", 2)
    return json.loads(content)["answer"]


class RequestSchema(unittest.TestCase):
    def setUp(self):
        self.schema = schema("request")

    def test_the_requests_of_the_good_samples_are_valid(self):
        for sample in SAMPLES.glob("*.json"):
            if "bad" in sample.name:
                continue
            requests = requests_in(sample.read_text())
            self.assertTrue(requests, sample.name)
            for request in requests:
                with self.subTest(sample.name):
                    self.schema.validate(request)

    def test_what_the_function_processes_whole_is_valid(self):
        for reason, request in corpus("unusual"):
            with self.subTest(reason):
                self.schema.validate(request)

    def test_what_the_function_rejects_is_not_valid(self):
        for name in ("requests", "asset_ids"):
            for reason, request in corpus(name):
                with self.subTest(reason):
                    self.assertFalse(self.schema.is_valid(request))


class ReportSchema(unittest.TestCase):
    def setUp(self):
        self.schema = schema("report")
        answers = [snapshot(sample) for sample in SAMPLES.glob("*.json")]
        self.reports = [answer for answer in answers if "status" in answer]

    def test_the_reports_on_the_samples_are_valid(self):
        self.assertGreaterEqual(len(self.reports), 11)
        for report in self.reports:
            with self.subTest(report=report):
                self.schema.validate(report)

    def test_no_field_of_a_report_can_be_left_out_or_added(self):
        for report in self.reports:
            for field in report:
                rest = {name: report[name] for name in report if name != field}
                with self.subTest(field, report=report):
                    self.assertFalse(self.schema.is_valid(rest))
            self.assertFalse(self.schema.is_valid({**report, "other": 1}))


if __name__ == "__main__":
    emulator.main()
