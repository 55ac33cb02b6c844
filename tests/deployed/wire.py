"""Records the function's requests, and checks them by botocore, with AWS's own
service models and signature."""

import hashlib
import http.client
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator

# SQS quotas, which are not in the service model.
SQS_BATCH_ENTRIES = 10
SQS_BATCH_BYTES = 1_048_576

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """A request as it arrived, with header names in lower case."""

    method: str
    path: str
    headers: dict
    body: bytes


class Recorder:
    """A proxy that records each request. It passes the header Host on unchanged,
    since it is signed."""

    def __init__(self, upstream):
        self.requests = []
        # The status to respond with instead of passing requests on.
        self.refuse_with = None
        self._upstream = urllib.parse.urlsplit(upstream).netloc
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        # It polls for its end ten times as often as by default.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = "http://{}:{}".format(*self._server.server_address)

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _handler(self):
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Otherwise a response's body waits for the head's acknowledgment.
            disable_nagle_algorithm = True

            def do_POST(self):
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                recorder.requests.append(request)
                status, headers, body = recorder._respond(request)
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            # The reader checks the method.
            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

            def log_message(self, *_):
                pass

        return Handler

    def _respond(self, request):
        if self.refuse_with:
            return self.refuse_with, [], b""
        connection = http.client.HTTPConnection(self._upstream)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()


class Reader:
    """Reads requests to one service by its model."""

    def __init__(self, service, region, credentials):
        self._service = service
        self._region = region
        self._credentials = Credentials(
            credentials["AWS_ACCESS_KEY_ID"],
            credentials["AWS_SECRET_ACCESS_KEY"],
            credentials["AWS_SESSION_TOKEN"],
        )
        self.model = botocore.session.Session().get_service_model(service)

    def read(self, request):
        """Returns a request's operation and parameters. Raises a `ValueError` with
        every problem of an invalid one."""
        operation, parameters = self._operation(request)
        shape = operation.input_shape
        problems = [
            *self._against_signature(request),
            *violations(parameters, shape, operation.name),
        ]
        report = ParamValidator().validate(parameters, shape)
        if report.has_errors():
            problems.append(report.generate_report())
        if operation.name == "SendMessageBatch":
            problems.extend(against_sqs_quotas(parameters))
        if problems:
            raise ValueError("\n".join(problems))
        return operation.name, parameters

    def _operation(self, request):
        protocol = self.model.metadata["protocol"]
        if protocol == "json":
            return self._json_operation(request)
        if protocol == "rest-json":
            return self._rest_json_operation(request)
        raise ValueError(f"{protocol}: unknown protocol")

    def _json_operation(self, request):
        metadata = self.model.metadata
        target = request.headers.get("x-amz-target", "")
        prefix, _, name = target.partition(".")
        if prefix != metadata["targetPrefix"] or name not in self.model.operation_names:
            raise ValueError(f"x-amz-target {target!r}")
        operation = self.model.operation_model(name)
        expect_content_type(request, f"application/x-amz-json-{metadata['jsonVersion']}")
        expected = operation.http
        if request.method != expected["method"] or request.path != expected["requestUri"]:
            raise ValueError(f"{request.method} {request.path}")
        return operation, json_object(request.body)

    def _rest_json_operation(self, request):
        path, _, query = request.path.partition("?")
        for name in self.model.operation_names:
            operation = self.model.operation_model(name)
            pattern = re.sub(
                r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.http["requestUri"])
            )
            match = re.fullmatch(pattern, path)
            if match and request.method == operation.http["method"]:
                break
        else:
            raise ValueError(f"{request.method} {request.path}: no operation of {self._service}")
        body = {}
        if request.method != "GET":
            expect_content_type(request, "application/json")
            body = json_object(request.body)
        elif request.body:
            raise ValueError("a GET with a body")
        sources = {
            "uri": {key: urllib.parse.unquote(value) for key, value in match.groupdict().items()},
            "querystring": dict(urllib.parse.parse_qsl(query, strict_parsing=bool(query))),
            None: body,
        }
        parameters = {}
        for key, member in operation.input_shape.members.items():
            source = sources[member.serialization.get("location")]
            wire_name = member.serialization.get("name", key)
            if wire_name in source:
                parameters[key] = source.pop(wire_name)
                # A query is text.
                if source is sources["querystring"] and member.type_name == "integer":
                    parameters[key] = int(parameters[key])
        # Only members of the input, each where it belongs.
        unknown = [key for source in sources.values() for key in source]
        if unknown:
            raise ValueError(f"{operation.name}: unknown {unknown}")
        return operation, parameters

    def _against_signature(self, request):
        """Returns how the signature differs from botocore's for the same request."""
        parsed = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=(\w+)",
            request.headers.get("authorization", ""),
        )
        if not parsed:
            return ["no signature of version 4"]
        scope, signed, signature = parsed.groups()
        headers = {name: request.headers[name] for name in signed.split(";")}
        again = AWSRequest(
            method=request.method,
            url=f"http://{request.headers['host']}{request.path}",
            headers=headers,
            data=request.body,
        )
        again.context["timestamp"] = request.headers["x-amz-date"]
        auth = SigV4Auth(self._credentials, self.model.signing_name, self._region)
        problems = []
        if scope != auth.scope(again):
            problems.append(f"signed for {scope}, not for {auth.scope(again)}")
        missing = {"host", "x-amz-date", "x-amz-security-token"} - set(headers)
        if missing:
            problems.append(f"not signed: {sorted(missing)}")
        if request.headers["x-amz-security-token"] != self._credentials.token:
            problems.append("another session token")
        # Where the request names its body's hash, botocore would believe it.
        claimed = request.headers.get("x-amz-content-sha256")
        if claimed not in (None, hashlib.sha256(request.body).hexdigest()):
            problems.append("the body is not the one of x-amz-content-sha256")
        expected = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
        if signature != expected:
            problems.append(f"signature {signature}, not {expected}")
        return problems


def expect_content_type(request, expected):
    found = request.headers.get("content-type")
    if found != expected:
        raise ValueError(f"content-type {found!r}, not {expected}")


def json_object(body):
    parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("the body is no JSON object")
    return parsed


def violations(value, shape, name):
    """Yields what botocore's validator does not check: maximum lengths, patterns."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for key, member in shape.members.items():
            if key in value:
                yield from violations(value[key], member, f"{name}.{key}")
    elif shape.type_name == "map" and isinstance(value, dict):
        for key, part in value.items():
            yield from violations(key, shape.key, f"{name}, a key")
            yield from violations(part, shape.value, f"{name}.{key}")
    elif shape.type_name == "list" and isinstance(value, list):
        yield from off_limits("length", len(value), shape, name)
        for at, part in enumerate(value):
            yield from violations(part, shape.member, f"{name}[{at}]")
    elif shape.type_name == "string" and isinstance(value, str):
        yield from off_limits("length", len(value), shape, name)
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{name}: {value!r} does not match {pattern}"
    elif shape.type_name == "integer" and isinstance(value, int):
        yield from off_limits("value", value, shape, name)


def off_limits(what, number, shape, name):
    least, most = (shape.metadata.get(limit) for limit in ("min", "max"))
    if least is not None and number < least or most is not None and number > most:
        yield f"{name}: {what} {number}, allowed are {least} to {most}"


def against_sqs_quotas(parameters):
    entries = parameters.get("Entries", [])
    if not 1 <= len(entries) <= SQS_BATCH_ENTRIES:
        yield f"{len(entries)} entries"
    if len({entry.get("Id") for entry in entries}) != len(entries):
        yield "entries with the same Id"
    size = sum(message_size(entry) for entry in entries)
    if size > SQS_BATCH_BYTES:
        yield f"{size} bytes"


def message_size(entry):
    attributes = entry.get("MessageAttributes", {})
    texts = [entry.get("MessageBody", "")]
    for name, attribute in attributes.items():
        texts += [name, attribute.get("DataType", ""), attribute.get("StringValue", "")]
    return sum(len(text.encode()) for text in texts)
