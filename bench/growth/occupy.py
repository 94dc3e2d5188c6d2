"""Fills a server before a measurement and stays: `python3 -m bench.growth.occupy KIND COUNT PORT TOKEN_FILE`.

KIND `idle`: COUNT empty documents, open and in sync, 250 to a Hocuspocus socket. KIND `history`: one document named
`history` that COUNT operations made. Prints `ready` when the server has answered for all of it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.growth.websocket import AUTH, STEP_1, STEP_2, SYNC, UPDATE, Connection, drain, string, varuint

# The server's limit is 256.
DOCUMENTS_PER_SOCKET = 250
# Two authors take turns with runs of this many characters, so that their runs never merge: real documents that many
# people wrote look like this, and a single run of any length would cost nothing.
RUN = 20
AUTHORS = (11, 12)
RUNS_PER_UPDATE = 20_000


def idle(count: int, port: int, token: str) -> list[Connection]:
    connections = []
    for first in range(0, count, DOCUMENTS_PER_SOCKET):
        connection = Connection(port, "/")
        waiting = {f"idle-{number}" for number in range(first, min(count, first + DOCUMENTS_PER_SOCKET))}
        for name in sorted(waiting):
            connection.send(string(name) + varuint(AUTH) + varuint(0) + string(token))
            connection.send(string(name) + bytes([SYNC, STEP_1]) + string(b"\0"))
        while waiting:
            for message in connection.ready():
                # A name has at most 127 characters here: one byte of length.
                name, rest = message[1 : 1 + message[0]].decode(), message[1 + message[0] :]
                if rest[:2] == bytes([SYNC, STEP_2]):
                    waiting.discard(name)
                elif rest[:2] == bytes([AUTH, 1]):
                    raise PermissionError(f"{name}: {rest[2:]!r}")
        connections.append(connection)
    return connections


def history(operations: int) -> Iterator[bytes]:
    """Updates (version 1) of a text `content`: runs of two authors, each behind the other's."""
    runs = max(1, operations // RUN)
    text = string("x" * RUN)
    for first in range(0, runs, RUNS_PER_UPDATE):
        last = min(runs, first + RUNS_PER_UPDATE)
        out = bytearray()
        authors = 0
        for author in (0, 1):
            mine = range(first + (first + author) % 2, last, 2)
            if not mine:
                continue
            authors += 1
            out += varuint(len(mine)) + varuint(AUTHORS[author]) + varuint(mine[0] // 2 * RUN)
            for run in mine:
                if run == 0:
                    out += b"\x04\x01" + string("content") + text
                else:
                    behind = varuint(AUTHORS[1 - author]) + varuint((run - 1) // 2 * RUN + RUN - 1)
                    out += b"\x84" + behind + text
        yield varuint(authors) + bytes(out) + b"\0"


def typed(count: int, port: int, token: str) -> list[Connection]:
    connection = Connection(port, "/history", token)
    for update in history(count):
        connection.send(bytes([SYNC, UPDATE]) + string(update))
    # What it answers comes behind what it was sent: then it has all of it. Its first step 2 answers nobody's question.
    wanted = varuint(2) + b"".join(varuint(author) + varuint(clock) for author, clock in state(count))
    connection.send(bytes([SYNC, STEP_1]) + string(wanted))
    while True:
        for message in connection.ready():
            if message[:2] == bytes([SYNC, STEP_2]):
                return [connection]


def state(operations: int) -> list[tuple[int, int]]:
    """The state vector that the history ends with."""
    runs = max(1, operations // RUN)
    return [(AUTHORS[0], (runs + 1) // 2 * RUN), (AUTHORS[1], runs // 2 * RUN)]


def main() -> None:
    kind, count, port, token = sys.argv[1:]
    fill = {"idle": idle, "history": typed}[kind]
    connections = fill(int(count), int(port), Path(token).read_text().strip())
    print("ready", flush=True)
    drain(connections)


if __name__ == "__main__":
    main()
