"""A TCP proxy that delays replies, refuses connections, and closes those that
are open in the ways in which a connection dies while its owner is frozen."""

import asyncio
import socket
import struct
import threading
import urllib.parse

from emulated import free_port

# With it a socket sends a reset when it is closed, whatever it has to send.
RESET = struct.pack("ii", 1, 0)

# What becomes of a connection that nobody watches: the server's end arrives, or
# its reset; or nothing does (the packet was lost, or a gateway has forgotten the
# connection), and whoever uses it gets a reset.
ENDS = ("end", "reset", "silence")


class Proxy:
    """Between a client and `upstream`, in a thread of its own."""

    def __init__(self, upstream, reply_delay=0.0):
        parts = urllib.parse.urlsplit(upstream)
        self.upstream = (parts.hostname, parts.port)
        self.reply_delay = reply_delay
        # Closed while open to a client, by how they were closed.
        self.closed = dict.fromkeys(ENDS, 0)
        # Of these, the ones that a client has still sent something over. What
        # it does with one that was reset at once cannot be seen from here.
        self.met = dict.fromkeys(ENDS, 0)
        self.connections = set()
        self._server = None
        self._port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.listen()
        self.url = f"http://127.0.0.1:{self._port}"

    def listen(self):
        """Takes connections, at the same port as ever."""
        self._call(self._listen())

    async def _listen(self):
        self._server = await self._loop.create_server(lambda: Client(self), "127.0.0.1", self._port)

    def refuse(self):
        """Refuses new connections, and resets those that are open."""
        self._call(self._refuse())
        self.close_connections("reset")

    async def _refuse(self):
        self._server.close()

    def close_connections(self, how, most=None):
        """Closes `most` connections, or all, in one of the ways of `ENDS`, the
        others with the server's end. Returns how many there were."""
        return self._call(self._close_connections(how, most))

    async def _close_connections(self, how, most):
        open_ones = [connection for connection in self.connections if connection.end is None]
        for number, connection in enumerate(open_ones):
            connection.close(how if most is None or number < most else "end")
        return len(open_ones)

    def close(self):
        """Stops all of it."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)


class Client(asyncio.Protocol):
    """A client's connection. It is the client's end that is closed; the
    upstream's only follows."""

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
            self.proxy.met[self.end] += 1
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
            # Still read from: that is how a client is seen that uses it.
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
        delay = self._client.proxy.reply_delay
        asyncio.get_running_loop().call_later(delay, self._pass_on, data)

    def _pass_on(self, data):
        if self._client.end is None and not self._client.transport.is_closing():
            self._client.transport.write(data)

    def connection_lost(self, _):
        delay = self._client.proxy.reply_delay
        asyncio.get_running_loop().call_later(delay, self._end)

    def _end(self):
        if self._client.end is None:
            self._client.transport.close()
