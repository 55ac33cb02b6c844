"""Lambda's part between the work queue and the function."""

import json


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


class EventSourceMapping:
    """Invokes the function with the work queue's messages, by the settings of the
    deployed mapping. One invocation at a time: the emulator takes no more."""

    def __init__(self, stack, invoke):
        settings = stack.event_source_mapping
        self._arn = settings["EventSourceArn"]
        self._batch_size = settings["BatchSize"]
        self._is_partial = "ReportBatchItemFailures" in settings.get("FunctionResponseTypes", [])
        self._queue = stack.outputs["WorkQueueUrl"]
        self._sqs = stack.client("sqs")
        self._invoke = invoke
        self._hidden = {}
        self.invocations = []

    def deliver(self):
        """Invokes the function once with the visible messages, and deletes those
        that it has processed. Returns whether there were any."""
        messages = self._receive()
        if not messages:
            return False
        records = [self._record(message) for message in messages]
        response = self._invoke(json.dumps({"Records": records}))
        self.invocations.append((records, response))
        failed = self.failed_ids(-1)
        handles = {message["MessageId"]: message["ReceiptHandle"] for message in messages}
        self._delete([handle for key, handle in handles.items() if key not in failed])
        self._hidden.update({key: handles[key] for key in failed})
        return True

    def deliver_all(self):
        """Invokes the function until no message is visible. Failed ones are hidden."""
        while self.deliver():
            pass

    def end_visibility_timeout(self):
        """Makes failed messages visible again: minutes later in AWS, when the
        queue's visibility timeout ends."""
        for handle in self._hidden.values():
            self._sqs.change_message_visibility(
                QueueUrl=self._queue, ReceiptHandle=handle, VisibilityTimeout=0
            )
        self._hidden.clear()

    def responses(self):
        return [json.loads(response) for _, response in self.invocations]

    def failed_ids(self, at):
        """Returns the messages that an invocation has left in the queue."""
        records, response = self.invocations[at]
        return failed_ids({record["messageId"] for record in records}, response, self._is_partial)

    def _receive(self):
        """Receives a batch, at most ten messages at a time, hidden for the queue's
        visibility timeout. The batching window is left out: nothing else sends in
        the meantime."""
        messages = []
        while len(messages) < self._batch_size:
            received = self._sqs.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=min(10, self._batch_size - len(messages)),
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not received:
                break
            messages += received
        return messages

    def _record(self, message):
        attributes = {
            name: {
                "stringValue": attribute["StringValue"],
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": attribute["DataType"],
            }
            for name, attribute in message.get("MessageAttributes", {}).items()
        }
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": attributes,
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": self._sqs.meta.region_name,
        }

    def _delete(self, handles):
        for batch in batches(handles, 10):
            entries = [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate(batch)]
            deleted = self._sqs.delete_message_batch(QueueUrl=self._queue, Entries=entries)
            assert not deleted.get("Failed"), deleted


def failed_ids(ids, response, is_partial):
    """Returns which of a batch's messages Lambda leaves in the queue after a
    response. `is_partial`: the mapping reads partial batch responses."""
    try:
        response = json.loads(response)
    except ValueError:
        return ids
    # The emulator sends an error with status 200 like any response.
    if isinstance(response, dict) and "errorType" in response:
        return ids
    if not is_partial or response is None:
        return set()
    try:
        failures = response.get("batchItemFailures") or []
        failed = {failure["itemIdentifier"] for failure in failures}
    except (AttributeError, KeyError, TypeError):
        return ids
    return failed if failed <= ids else ids
