"""A worker's end of the channel to its supervisor: messages, and the duplicate of each connection to NATS."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from ajhost.adapters.linux.channel import Channel, ChannelClosed, ChannelFull
from ajhost.core.timings import POLL_INTERVAL, SOCKET_STORED_LIMIT
from ajhost.roles.messages import FOR_WORKER, BadMessage, FromWorker, NewSocket, SocketStored, ToWorker, encode
from ajhost.roles.worker.supervisor_gone import Ending

_log = logging.getLogger("ajhost.worker")


class SupervisorChannel:
    """A worker's end of the channel. When the channel ends, it says so to `ending`."""

    def __init__(self, channel: Channel, ending: Ending) -> None:
        self._channel, self._ending = channel, ending
        self._loop = asyncio.get_running_loop()
        self._epoch = 0
        self._stored = asyncio.Event()

    def listen(self, obey: Callable[[ToWorker], None]) -> None:
        """Calls `obey` for each order that comes from now on."""
        self._loop.add_reader(self._channel.fileno(), self._readable, obey)

    def _readable(self, obey: Callable[[ToWorker], None]) -> None:
        try:
            for found, _ in self._channel.received():
                try:
                    message = FOR_WORKER.decode(found)
                except BadMessage as error:
                    _log.error("the supervisor sent %s", error)
                    continue
                if not isinstance(message, SocketStored):
                    obey(message)
                elif message.epoch == self._epoch:
                    self._stored.set()
        except ChannelClosed:
            self._loop.remove_reader(self._channel.fileno())
            self._stored.set()
            self._ending.channel_closed()

    def tell(self, message: FromWorker) -> None:
        """Sends a message, later if the channel is full."""
        try:
            self._channel.send(encode(message))
        except ChannelClosed:
            pass  # the end of the channel is seen by its reader
        except ChannelFull:
            self._loop.call_later(POLL_INTERVAL, self.tell, message)

    async def pass_on(self, sock: socket.socket, epoch: int) -> None:
        """Sends a duplicate of a connection, and waits until it is stored, for `SOCKET_STORED_LIMIT` at most."""
        self._epoch = epoch
        self._stored.clear()
        try:
            async with asyncio.timeout(SOCKET_STORED_LIMIT):
                await self._send(NewSocket(epoch), sock)
                await self._stored.wait()
        except TimeoutError:
            pass
        except ChannelClosed:
            self._ending.alone = True  # the reader is about to find it, too

    async def _send(self, message: FromWorker, sock: socket.socket) -> None:
        while True:
            try:
                return self._channel.send(encode(message), [sock.fileno()])
            except ChannelFull:
                await asyncio.sleep(POLL_INTERVAL)
