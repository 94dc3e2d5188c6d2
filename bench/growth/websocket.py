"""Just enough WebSocket, y-websocket and Hocuspocus to put documents into a server and to keep them there.

Blocking sockets; deliberately without fragments (the server sends none) and without a CRDT: what arrives is counted.
"""

import base64
import os
import select
import socket
from collections.abc import Iterator

SYNC, AWARENESS, AUTH = 0, 1, 2
STEP_1, STEP_2, UPDATE = 0, 1, 2
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def varuint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return varuint(len(data)) + data


class Connection:
    def __init__(self, port: int, path: str, token: str | None = None):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        protocol = f"Sec-WebSocket-Protocol: access_token, {token}\r\n" if token else ""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n".encode()
        )
        self.received = b""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(f"no upgrade: {head[:200]!r}")

    def send(self, payload: bytes, kind: int = BINARY) -> None:
        """One frame, masked with zeros: that is allowed, and free."""
        length = len(payload)
        short = 126 if length < 1 << 16 else 127
        size = bytes([128 | length]) if length < 126 else bytes([128 | short]) + length.to_bytes(2 if short == 126 else 8)
        self.socket.sendall(bytes([128 | kind]) + size + bytes(4) + payload)

    def ready(self) -> Iterator[bytes]:
        """The messages that are whole, after one read. Pings are answered."""
        self._receive()
        at = 0
        while (frame := self._frame(at)) is not None:
            kind, start, at = frame
            payload = self.received[start:at]
            if kind == PING:
                self.send(payload, PONG)
            elif kind == CLOSE:
                raise ConnectionError(f"closed by the server: {payload[:2].hex()} {payload[2:].decode(errors='replace')}")
            elif kind == BINARY:
                yield payload
        self.received = self.received[at:]

    def _frame(self, at: int) -> tuple[int, int, int] | None:
        """Kind, start and end of the frame at `at`, if all of it is there."""
        if len(self.received) < at + 2:
            return None
        kind, length, start = self.received[at] & 15, self.received[at + 1] & 127, at + 2
        if length > 125:
            digits = 2 if length == 126 else 8
            length, start = int.from_bytes(self.received[start : start + digits]), start + digits
        return (kind, start, start + length) if len(self.received) >= start + length else None

    def _receive(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.received += data


def drain(connections: list[Connection]) -> None:
    """Reads and forgets, and so stays connected, until the server or our parent ends it."""
    poll = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            for _ in by_number[number].ready():
                pass
