"""The same job with boto3 and Powertools' batch processor."""

import json

import boto3
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from botocore.config import Config

ASSETS_PER_CALL = 100

processor = BatchProcessor(event_type=EventType.SQS)
# The SDK puts `monitor.` before the host, which a loopback address cannot have.
sitewise = boto3.client("iotsitewise", config=Config(inject_host_prefix=False))


def disassociate(record):
    request = json.loads(record.body)
    assets = request["assetIds"]
    for start in range(0, len(assets), ASSETS_PER_CALL):
        answer = sitewise.batch_disassociate_project_assets(
            projectId=request["projectId"], assetIds=assets[start : start + ASSETS_PER_CALL]
        )
        if answer.get("errors"):
            raise RuntimeError(f"{len(answer['errors'])} assets failed")


def handler(event, context):
    return process_partial_response(
        event=event, record_handler=disassociate, processor=processor, context=context
    )
