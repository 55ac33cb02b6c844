"""As little of a Lambda runtime as handler.py needs."""

import http.client
import json
import os

import handler

VERSION = "/2018-06-01/runtime"

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", f"{VERSION}/invocation/next")
    response = api.getresponse()
    request_id = response.headers["lambda-runtime-aws-request-id"]
    event = json.loads(response.read())
    try:
        path, answer = "response", handler.handler(event, None)
    except Exception as error:
        path, answer = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
    del event
    api.request("POST", f"{VERSION}/invocation/{request_id}/{path}", json.dumps(answer))
    api.getresponse().read()
