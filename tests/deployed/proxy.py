"""A TCP proxy that closes its connections in the ways in which they die while
the process that owns them is frozen."""

import asyncio
import socket
import struct
import threading
import urllib.parse

from processes import free_port

# With it a socket sends a reset when it is closed, whatever it has to send.
RESET = struct.pack("ii", 1, 0)

# How a connection may die unnoticed: the server's end arrives, or its reset; or
# nothing does (the packet was lost, or a gateway forgot the connection), and the
# next use of it is answered with a reset.
ENDS = ("end", "reset", "silence")


class Proxy:
    """Runs between a client and `upstream`, in a thread of its own."""

    def __init__(self, upstream):
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        # How many were closed in each way, and how many of these a client has
        # still used. Use of one that was reset at once cannot be seen from here.
        self.closed = dict.fromkeys(ENDS, 0)
        self.used = dict.fromkeys(ENDS, 0)
        self.connections = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = free_port()
        self._server = self._call(
            self._loop.create_server(lambda: Client(self), "127.0.0.1", port)
        )
        self.url = f"http://127.0.0.1:{port}"

    def close_connections(self, how, most=None):
        """Closes `most` connections, or all, in one of the ways of `ENDS`, the
        others by the server's end. Returns how many there were."""
        return self._call(self._close_connections(how, most))

    async def _close_connections(self, how, most):
        open_ones = [connection for connection in self.connections if connection.end is None]
        for number, connection in enumerate(open_ones):
            connection.close(how if most is None or number < most else "end")
        return len(open_ones)

    def close(self):
        self._loop.call_soon_threadsafe(self._server.close)
        self.close_connections("reset")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)


class Client(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, proxy):
        self.proxy = proxy
        # How it was closed, if it was.
        self.end = None
        self.transport = None
        self._upstream = None
        self._waiting = []
        self._connecting = None

    def connection_made(self, transport):
        self.transport = transport
        self.proxy.connections.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self):
        try:
            loop = asyncio.get_running_loop()
            upstream, _ = await loop.create_connection(lambda: Upstream(self), *self.proxy.upstream)
        except OSError:
            self.transport.abort()
            return
        self._upstream = upstream
        for data in self._waiting:
            upstream.write(data)

    def data_received(self, data):
        if self.end is not None:
            self.proxy.used[self.end] += 1
            self._reset()
        elif self._upstream:
            self._upstream.write(data)
        else:
            self._waiting.append(data)

    def connection_lost(self, _):
        self.proxy.connections.discard(self)
        self._connecting.cancel()
        if self._upstream:
            self._upstream.abort()

    def close(self, how):
        self.end = how
        self.proxy.closed[how] += 1
        if self._upstream:
            self._upstream.abort()
        if how == "reset":
            self._reset()
        elif how == "end":
            # Still read from, to see whether a client uses it.
            self.transport.write_eof()

    def _reset(self):
        stream = self.transport.get_extra_info("socket")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


class Upstream(asyncio.Protocol):
    """The other side of a client's connection."""

    def __init__(self, client):
        self._client = client

    def data_received(self, data):
        if self._client.end is None and not self._client.transport.is_closing():
            self._client.transport.write(data)

    def connection_lost(self, _):
        if self._client.end is None:
            self._client.transport.close()
