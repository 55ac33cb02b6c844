"""Ids, requests and events by number, and the samples of events/."""

import json
import pathlib

SAMPLES = pathlib.Path(__file__).resolve().parent.parent.parent / "events"


def sample(name):
    """Returns the text of a sample event."""
    return (SAMPLES / f"{name}.json").read_text()


def as_text(event):
    """Returns an event as it is sent. One that is text already stays as it is."""
    return event if isinstance(event, str) else json.dumps(event)


def project(number):
    return f"aaaaaaaa-0000-4000-8000-{number:012x}"


def portal(number):
    return f"dddddddd-0000-4000-8000-{number:012x}"


def asset(number):
    return f"bbbbbbbb-0000-4000-8000-{number:012x}"


def assets(*numbers):
    return [asset(number) for number in numbers]


def message_id(number):
    return f"cccccccc-0000-4000-8000-{number:012x}"


def request(number, asset_ids, **fields):
    """Returns a request for a project."""
    return {"projectId": project(number), "assetIds": asset_ids, **fields}


def sqs_record(number, body):
    return {"messageId": message_id(number), "eventSource": "aws:sqs", "body": as_text(body)}


def sqs_event(*records):
    return {"Records": list(records)}


def rule_event(number, detail):
    return {
        "version": "0",
        "id": message_id(number),
        "detail-type": "Assets Decommissioned",
        "source": "com.example.maintenance",
        "detail": detail,
    }


def topic_event(number, message):
    notification = {
        "Type": "Notification",
        "MessageId": message_id(number),
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:topic",
        "Message": as_text(message),
    }
    return {"Records": [{"EventSource": "aws:sns", "Sns": notification}]}
