"""Processes and the ports that they listen on."""

import contextlib
import random
import socket
import subprocess
import time


def free_ports(count):
    """Returns free ports below those that the kernel gives to outgoing
    connections: one of these could take a port before the process that it is
    meant for."""
    with contextlib.ExitStack() as held:
        ports = []
        while len(ports) < count:
            listener = held.enter_context(socket.socket())
            port = random.randrange(20_000, 32_000)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def free_port():
    [port] = free_ports(1)
    return port


def wait_until(condition, seconds=20, interval=0.01):
    """Returns the condition's value as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        time.sleep(interval)
    return value


def wait_for_port(port, seconds=20):
    def is_open():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(is_open, seconds, interval=0.05)


def start(command, environment, output):
    return subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
