"""A client of a receiver that may be killed at any moment: it knows what was answered, and sends the rest again."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from typing import Any

from campaigns import spans

CONNECTIONS = 4
_HEADERS = "Host: h\r\nContent-Type: application/x-protobuf\r\n"


class Client:
    """Sends requests over a few connections, each with one under way, and reads the answers; one thread."""

    def __init__(self, port: int, requests: spans.Requests, again: list[int], number: int) -> None:
        self.number, self.again, self.sending = number, list(again), True
        self.answered: list[range] = []
        self._requests = requests
        self._poll = selectors.DefaultSelector()
        self._under_way: dict[socket.socket, tuple[int, bytes]] = {}
        for _ in range(CONNECTIONS):
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                self._poll.register(connection, selectors.EVENT_READ)
                self._send(connection)

    @property
    def pending(self) -> list[int]:
        """The first spans of the requests that were sent and not answered."""
        return [first for first, _ in self._under_way.values()]

    def turn(self, seconds: float) -> bool:
        """Take what was answered, and send the next; whether anything came."""
        events = self._poll.select(seconds)
        for key, _ in events:
            self._take(key.fileobj)
        return bool(events)

    def close(self) -> None:
        for key in list(self._poll.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._poll.close()

    def _send(self, connection: socket.socket) -> None:
        if not self.sending:
            return
        if self.again:
            first = self.again.pop()
        else:
            first, self.number = self.number, self.number + self._requests.size
        body = self._requests.encoded(first)
        head = f"POST /v1/traces HTTP/1.1\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n"
        self._under_way[connection] = (first, b"")
        with suppress(OSError):
            connection.sendall(head.encode() + body)

    def _take(self, connection: Any) -> None:
        first, before = self._under_way.get(connection, (0, b""))
        try:
            data = connection.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(connection)
            connection.close()
            if connection in self._under_way:
                self.again.append(self._under_way.pop(connection)[0])
            return
        answer = before + data
        head, blank, body = answer.partition(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if not blank or len(body) < size:
            self._under_way[connection] = (first, answer)
            return
        del self._under_way[connection]
        if answer.startswith(b"HTTP/1.1 200"):
            assert not body, f"a part was refused: {body!r}"
            self.answered.append(range(first, first + self._requests.size))
        else:
            self.again.append(first)
        self._send(connection)
