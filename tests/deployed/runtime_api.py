"""A function's process, and the side of the Runtime API that Lambda has.

AWS's own emulator cannot give a deadline of less than a second, nor one for each
invocation, and is no instrument to measure with. One thread and bare sockets:
between a function's request and the time noted for it is only the kernel.
"""

import json
import os
import select
import socket
import sys
import tempfile
import time
import typing
import uuid

# What Lambda sets for every function, as far as a function here reads it.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_LAMBDA_FUNCTION_NAME": "sitewise-disassociator",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
    # Read by the emulator: the deadline of an invocation.
    "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/sitewise-disassociator",
    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
}

# Enters a control group, writes down the time and becomes the function: the time
# before does not count as the function's.
ENTER = """
import os, sys, time
with open(f"{sys.argv[1]}/cgroup.procs", "w") as group:
    group.write("0")
os.set_inheritable(3, False)
os.write(3, str(time.monotonic_ns()).encode())
os.execv(sys.argv[2], sys.argv[2:])
"""

VERSION = "/2018-06-01/runtime"
LONGEST_TIMEOUT_SECONDS = 900
LONGEST_WAIT_SECONDS = 300


class Failed(Exception):
    """The function did not do its job."""


class Response(typing.NamedTuple):
    body: typing.Any
    # Since the event was sent, and since the process's exec.
    seconds: float
    seconds_since_exec: float


class Function:
    """A process, started and waiting for its first event: it asked for it
    `seconds_to_next` after its exec."""

    def __init__(self, command, environment, cpu_group=None):
        self._connections = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._output = tempfile.TemporaryFile()
        address = "{}:{}".format(*self._listener.getsockname())
        environment = {**environment, "AWS_LAMBDA_RUNTIME_API": address}
        self.pid, self._started = self._spawn(command, environment, cpu_group)
        try:
            self._waiting, arrived = self._next()
        except BaseException:
            self.stop()
            raise
        self.seconds_to_next = arrived - self._started

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        self.pid = None
        for connection in self._connections.values():
            connection[0].close()
        self._listener.close()
        self._output.close()

    def invoke(self, event, seconds_left=LONGEST_TIMEOUT_SECONDS):
        """Returns the response to an event, whose deadline is so many seconds
        from now."""
        head = (
            "HTTP/1.1 200 OK\r\n"
            "content-type: application/json\r\n"
            f"lambda-runtime-aws-request-id: {uuid.uuid4()}\r\n"
            f"lambda-runtime-deadline-ms: {int((time.time() + seconds_left) * 1000)}\r\n"
            "lambda-runtime-invoked-function-arn: "
            "arn:aws:lambda:eu-west-1:123456789012:function:sitewise-disassociator\r\n"
            f"content-length: {len(event)}\r\n\r\n"
        )
        sent = now()
        self._waiting.sendall(head.encode() + event)
        connection, method, path, body, arrived = self._receive()
        connection.sendall(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}")
        if method != "POST" or not path.endswith("/response"):
            raise self._failed(f"{method} {path}: {body[:2000].decode()}")
        self._waiting, _ = self._next()
        return Response(json.loads(body), arrived - sent, arrived - self._started)

    def cpu_seconds(self):
        """Returns the user and system time of all the process's threads (the clock
        of clock_getcpuclockid, to the nanosecond)."""
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def memory(self, field):
        """Returns a field of /proc/PID/status (VmRSS, VmHWM), in bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) * 1024
        raise self._failed(f"no {field}")

    def _spawn(self, command, environment, cpu_group):
        null = os.open(os.devnull, os.O_RDONLY)
        read_end, write_end = os.pipe()
        output = self._output.fileno()
        files = [(os.POSIX_SPAWN_DUP2, null, 0)]
        files += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
        if cpu_group:
            files.append((os.POSIX_SPAWN_DUP2, write_end, 3))
            command = [sys.executable, "-ISc", ENTER, cpu_group, *command]
        started = now()
        pid = os.posix_spawn(command[0], command, environment, file_actions=files)
        os.close(write_end)
        if cpu_group:
            started = int(os.read(read_end, 99) or "0") / 1e9
        os.close(read_end)
        os.close(null)
        return pid, started

    def _next(self):
        connection, method, path, body, arrived = self._receive()
        if (method, path) != ("GET", f"{VERSION}/invocation/next"):
            raise self._failed(f"{method} {path}: {body[:2000].decode()}")
        return connection, arrived

    def _receive(self):
        """Returns the next request, on any connection."""
        deadline = now() + LONGEST_WAIT_SECONDS
        while now() < deadline:
            for number, _ in self._poll.poll(100):
                if number == self._listener.fileno():
                    accepted, _ = self._listener.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._connections[accepted.fileno()] = (accepted, bytearray())
                    self._poll.register(accepted, select.POLLIN)
                    continue
                connection, received = self._connections[number]
                part = connection.recv(1 << 20)
                arrived = now()
                received += part
                if not part:
                    self._poll.unregister(connection)
                    del self._connections[number]
                    connection.close()
                    continue
                request = self._parse(received)
                if request:
                    received.clear()
                    return (connection, *request, arrived)
            if os.waitpid(self.pid, os.WNOHANG) != (0, 0):
                self.pid = None
                raise self._failed("the process ended")
        raise self._failed("nothing came")

    def _parse(self, received):
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = received[:end].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        pairs = [line.split(":", 1) for line in lines]
        headers = {name.lower(): value.strip() for name, value in pairs}
        if "transfer-encoding" in headers:
            raise self._failed("a chunked request")
        body = received[end + 4 :]
        if len(body) < int(headers.get("content-length", 0)):
            return None
        return method, path, bytes(body)

    def _failed(self, reason):
        self._output.seek(0)
        return Failed(f"{reason}\n{self._output.read()[-4000:].decode(errors='replace')}")


def now():
    return time.monotonic_ns() / 1e9
