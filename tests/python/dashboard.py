"""`wiresocket dashboard` as tests start it."""
import json
import os
import pathlib
import socket
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = os.environ.get("WIRESOCKET_BIN", str(TARGET / "debug" / "wiresocket"))


class Dashboard:
    """`wiresocket dashboard` on a database of its own; its issuer is its own address. `more` ends its configuration."""

    def __init__(self, more=""):
        self.directory = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.directory.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.issuer = f"http://{address}"
        self.config = path / "dashboard.toml"
        subprocess.run([BINARY, "admin", "generate-master-key", path / "key"], check=True, capture_output=True)
        self.config.write_text(
            f'[dashboard]\nlisten = "{address}"\nissuer = "{self.issuer}"\noperator_email = "ops@example.com"\n'
            f'[database]\nhome = "sqlite:{path / "home.db"}"\n[master_keys]\n1 = {{ file = "{path / "key"}" }}\n'
            + more
        )
        command = [BINARY, "dashboard", "--config", self.config]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "listening" in line:
                return
        self.process.communicate()
        self.directory.cleanup()
        raise RuntimeError("the dashboard ended before it listened: " + "".join(said))

    def admin(self, *arguments):
        command = [BINARY, "admin", "--config", self.config, *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def stop(self):
        """Its exit code; what it said since it listened is in `log` then."""
        self.process.terminate()
        _, self.log = self.process.communicate()
        self.directory.cleanup()
        return self.process.returncode
