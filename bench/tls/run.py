#!/usr/bin/env python3
"""What TLS costs a node: CPU of handshakes and deliveries, memory of idle connections, each beside plain HTTP.

    python3 bench/tls/run.py target/release/wiresocket [--key ec|rsa] [handshakes] [memory] [deliveries]

Needs `openssl` for the certificate. CPU is what the scheduler says of all the node's threads, so what else runs on the
machine disturbs it little. The load tester speaks no TLS, hence the small WebSocket client in here.
"""
import argparse
import json
import pathlib
import socket
import ssl
import statistics
import struct
import subprocess
import tempfile
import threading
import time

TENANT = "0e6b0d4e-4c0e-4b0e-9d0a-6a1c2f3b4c5d"
VERSIONS = {"TLS 1.3": ssl.TLSVersion.TLSv1_3, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
KEYS = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "rsa": ["rsa:2048"]}
LIMITS = {"maxConnections": 10**6, "maxDocuments": 10**6, "maxUsersPerDoc": 10**6, "opsPerMinute": 10**9}


class Place:
    """A directory with a certificate, a tenant's key, and a token."""

    def __init__(self, binary, key, directory):
        self.binary, self.path = binary, pathlib.Path(directory)
        run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
        run("openssl", "req", "-x509", "-newkey", *KEYS[key], "-nodes", "-subj", "/CN=test", "-days", "30", "-addext",
            "subjectAltName=IP:127.0.0.1", "-out", self.path / "certificate.pem", "-keyout", self.path / "key.pem")
        run(binary, "token", "--generate-key", self.path / "keys", "--tenant", TENANT)
        self.token = run(binary, "token", "--key", self.path / "keys" / f"{TENANT}.pem", "--claims",
                         json.dumps({"limits": LIMITS})).strip()

    def context(self, version):
        context = ssl.create_default_context(cafile=self.path / "certificate.pem")
        context.minimum_version = context.maximum_version = version
        return context


class Node:
    def __init__(self, place, tls):
        self.place = place
        sections = {
            "node": {"listen": "127.0.0.1:0", "shards": 2},
            "auth": {"issuer": "https://wiresocket.local", "key_dir": str(place.path / "keys")},
            "http": {"upgrades_per_minute": 0, "health_per_minute": 0},
            "journal": {"durability": "memory"},
            "log": {"format": "json"},
        }
        if tls:
            sections["tls"] = {"certificate": str(place.path / "certificate.pem"), "private_key": str(place.path / "key.pem")}
        lines = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                 for name, keys in sections.items()]
        file = place.path / "node.toml"
        file.write_text("".join(lines))
        self.process = subprocess.Popen([place.binary, "node", "--config", file], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("{") and (entry := json.loads(line))["message"] == "listening":
                self.port = int(entry["address"].rsplit(":", 1)[1])
                break
        else:
            raise SystemExit("the node ended")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def cpu_s(self):
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def pss_bytes(self):
        lines = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def connect(self, context=None, session=None):
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(stream, server_hostname="127.0.0.1", session=session) if context else stream

    def join(self, document, context=None):
        stream = self.connect(context)
        stream.sendall(f"GET /{document} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                       f"Authorization: Bearer {self.place.token}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += stream.recv(1)
        assert b" 101 " in answer, answer
        return stream


def request(stream):
    stream.sendall(b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n")
    while stream.recv(4096):
        pass
    stream.close()


def handshakes(place, count=1000):
    def measure(node, name, context=None, resumed=False):
        first = node.connect(context)
        first.sendall(b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n")
        while first.recv(4096):
            pass
        kept = first.session if resumed else None

        def once():
            stream = node.connect(context, kept)
            assert not context or stream.session_reused == resumed
            request(stream)

        for _ in range(50):
            once()
        before = node.cpu_s()
        for _ in range(count):
            once()
        print(f"{name}: {1e6 * (node.cpu_s() - before) / count:.0f} us of CPU for a connection with one GET /health", flush=True)

    with Node(place, tls=False) as node:
        measure(node, "plain")
    with Node(place, tls=True) as node:
        for name, version in VERSIONS.items():
            measure(node, f"{name}, full", place.context(version))
            measure(node, f"{name}, resumed", place.context(version), resumed=True)


def memory(place, count=2000):
    for name, version in {"plain": None, **VERSIONS}.items():
        with Node(place, tls=version is not None) as node:
            context = version and place.context(version)
            streams = [node.join("idle", context) for _ in range(100)]
            time.sleep(2)  # what the start has left is given back
            before = node.pss_bytes()
            streams += [node.join("idle", context) for _ in range(count)]
            time.sleep(3)
            each = (node.pss_bytes() - before) / count
            print(f"{name}: {each:.0f} bytes of Pss for an idle connection ({count} of them)", flush=True)
            del streams


def exactly(stream, count):
    read = b""
    while len(read) < count:
        part = stream.recv(count - len(read))
        assert part, "the node has closed"
        read += part
    return read


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def awareness(clock, mark):
    """One client's state, masked with zeros."""
    state = json.dumps({"mark": mark}).encode()
    entry = varint(1) + varint(4711) + varint(clock) + varint(len(state)) + state
    message = varint(1) + varint(len(entry)) + entry
    head = bytes([0x82, 0x80 | 126]) + struct.pack(">H", len(message))
    return head + b"\0\0\0\0" + message


def deliveries(place, receivers=40, messages=300, rounds=7):
    mark = "x" * 120
    figures = {"plain": [], "TLS 1.3": []}
    with Node(place, tls=False) as plain, Node(place, tls=True) as encrypted:
        nodes = {"plain": plain, "TLS 1.3": encrypted}
        context = place.context(VERSIONS["TLS 1.3"])
        rooms = {name: [node.join("room", context if node is encrypted else None) for _ in range(receivers + 1)]
                 for name, node in nodes.items()}
        clock = 0
        for _ in range(rounds):
            for name, node in nodes.items():
                sender, *others = rooms[name]
                before = node.cpu_s()
                for _ in range(messages):
                    clock += 1
                    sender.sendall(awareness(clock, mark))
                    for stream in others:
                        payload = b""
                        while mark.encode() not in payload:
                            _, length = exactly(stream, 2)
                            if length == 126:
                                length = struct.unpack(">H", exactly(stream, 2))[0]
                            payload = exactly(stream, length)
                figures[name].append(1e6 * (node.cpu_s() - before) / (messages * receivers))
    for name, runs in figures.items():
        shown = ", ".join(f"{run:.2f}" for run in runs)
        print(f"{name}: {statistics.median(runs):.2f} us of CPU for a delivery (runs: {shown})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--key", choices=KEYS, default="ec")
    parser.add_argument("what", nargs="*", default=[])
    arguments = parser.parse_intermixed_args()
    parts = {"handshakes": handshakes, "memory": memory, "deliveries": deliveries}
    with tempfile.TemporaryDirectory() as directory:
        place = Place(arguments.binary, arguments.key, directory)
        for name in arguments.what or parts:
            parts[name](place)


if __name__ == "__main__":
    main()
