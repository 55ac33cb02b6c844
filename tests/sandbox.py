"""Lambda's Runtime API, played for one bootstrap: what AWS's own emulator cannot
do is a deadline that is not in whole seconds, and one for each invocation."""

import http.server
import queue
import tempfile
import threading
import time

import emulated


class Sandbox:
    """Lambda's Runtime API for one bootstrap, with any deadline."""

    def __init__(self, environment):
        self._events = queue.Queue()
        self._answers = queue.Queue()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.output = tempfile.TemporaryFile("w+")
        address = "{}:{}".format(*self._server.server_address)
        environment = {**environment, "AWS_LAMBDA_RUNTIME_API": address}
        self._process = emulated.start(emulated.BOOTSTRAP, environment, self.output)

    def close(self):
        emulated.stop(self._process)
        self._server.shutdown()
        self._server.server_close()
        self.output.close()

    def invoke(self, event, seconds_left):
        """Returns the answer, and how many seconds before the deadline it came;
        less than none: after it."""
        self._events.put((event, seconds_left))
        try:
            deadline, answered, answer = self._answers.get(timeout=seconds_left + 30)
        except queue.Empty:
            self.output.seek(0)
            raise AssertionError(f"no answer: {self.output.read()}") from None
        return answer, deadline - answered

    def _handler(self):
        sandbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                assert self.path == "/2018-06-01/runtime/invocation/next", self.path
                event, seconds_left = sandbox._events.get()
                sandbox._deadline = time.time() + seconds_left
                headers = {
                    "lambda-runtime-aws-request-id": "dddddddd-0000-4000-8000-000000000001",
                    "lambda-runtime-deadline-ms": str(int(sandbox._deadline * 1000)),
                    "lambda-runtime-invoked-function-arn": "arn:aws:lambda:eu-west-1:1:function:f",
                    "content-type": "application/json",
                }
                self._answer(200, event.encode(), headers)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                answered = time.time()
                self._answer(202, b"{}", {})
                is_answer = self.path.endswith("/response")
                answer = body if is_answer else f"{self.path}: {body}"
                sandbox._answers.put((sandbox._deadline, answered, answer))

            def _answer(self, status, body, headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
