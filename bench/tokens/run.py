"""`make bench-tokens`: how many access tokens the dashboard's token endpoint gives, on SQLite and on PostgreSQL.

The dashboard has core 0, the load tester core 1, and PostgreSQL too, if it is installed: a cluster of its own in a
temporary directory, which syncs as a real one does. CLIENTS=1,16,64, SECONDS_EACH=10 and DATABASES=sqlite,postgresql narrow
it; WIRESOCKET= and LOADTEST= are other binaries. Prints a Markdown table. The exit code is 2 if nothing could be measured.
"""

import glob
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import machine
from bench.peers.servers import LOADTEST, WIRESOCKET, ServerError, child, end, free_port

GRANTS = ["client-credentials", "refresh-token"]
START_S = 30


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise ServerError(f"{Path(str(command[0])).name}: {done.stderr.strip()[-500:]}")
    return done.stdout


class Postgresql:
    """A cluster on a Unix socket in `folder`, run by somebody without rights: PostgreSQL refuses root."""

    def __init__(self, folder: Path, core: int | None):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        bins = Path(found[-1]) if found else Path(shutil.which("postgres") or "").parent
        if not (bins / "initdb").exists():
            raise ServerError("PostgreSQL is not installed (apt-get install postgresql): it is left out")
        user = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options = ["--username=bench", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        run(bins / "initdb", "--pgdata", folder / "data", *options, **user, cwd=folder)
        server = [bins / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses="]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.server = child(server, core, cwd=folder, **quiet, **user)
        self.url = f"postgresql://bench@localhost/postgres?host={folder}"
        until = time.monotonic() + START_S
        while subprocess.run([bins / "pg_isready", "-q", "-h", folder]).returncode != 0:
            if time.monotonic() > until:
                raise ServerError("PostgreSQL did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        end(self.server)


class Dashboard:
    """`wiresocket dashboard` with one app."""

    def __init__(self, folder: Path, database: str, core: int | None):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.config = folder / "dashboard.toml"
        run(WIRESOCKET, "admin", "generate-master-key", folder / "key")
        self.config.write_text(
            f'[dashboard]\nlisten = "{self.url.removeprefix("http://")}"\nissuer = "{self.url}"\noperator_email = "ops@example.com"\n'
            f'[database]\nhome = "{database}"\n[master_keys]\n1 = {{ file = "{folder / "key"}" }}\n[log]\nlevel = "warn"\n'
        )
        command = [WIRESOCKET, "dashboard", "--config", self.config]
        self.log = folder / "dashboard.log"
        with open(self.log, "wb") as log:
            self.process = child(command, core, stdout=log, stderr=log)
        self.wait_until_it_answers()
        tenant = self.admin("create-tenant", "Bench", "--owner", "owner@example.com", "--approve")["tenant"]
        app = self.admin("create-app", tenant, "Bench", "--plan", "pro")
        self.client_id, self.secret = app["clientId"], folder / "secret"
        self.secret.write_text(app["clientSecret"])

    def wait_until_it_answers(self) -> None:
        until = time.monotonic() + START_S
        while subprocess.run(["curl", "-fsS", "-o", os.devnull, f"{self.url}/health"], stderr=subprocess.DEVNULL).returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                raise ServerError(f"the dashboard did not start: {self.log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)

    def admin(self, *arguments) -> dict:
        return json.loads(run(WIRESOCKET, "admin", "--config", self.config, *arguments))

    def measure(self, grant: str, clients: int, seconds: int, core: int | None) -> dict:
        command = [LOADTEST, "tokens", "--token-endpoint", f"{self.url}/connect/token", "--client-id", self.client_id]
        command += ["--client-secret-file", self.secret, "--grant", grant, "--clients", clients, "--seconds", seconds]
        tester = child([*command, "--pid", self.process.pid, "--json"], core, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        figures, errors = tester.communicate(timeout=seconds + START_S)
        if tester.returncode != 0:
            raise ServerError(errors.decode(errors="replace").strip()[-500:])
        return json.loads(figures)

    def stop(self) -> None:
        end(self.process)


def measure(database: str, clients: list[int], seconds: int, used: machine.Cores) -> None:
    with tempfile.TemporaryDirectory(prefix="tokens") as name:
        folder, servers = Path(name), []
        try:
            url = f"sqlite:{folder / 'home.db'}"
            if database == "PostgreSQL":
                cluster = Path(tempfile.mkdtemp(dir=folder))
                folder.chmod(0o711)
                servers.append(Postgresql(cluster, used.generator))
                url = servers[0].url
            dashboard = Dashboard(folder, url, used.server)
            servers.append(dashboard)
            for grant in GRANTS:
                for count in clients:
                    rate = dashboard.measure(grant, count, seconds, used.generator)
                    latency = rate["latency"]
                    cells = [database, grant.replace("-", "_"), count, f"{rate['tokens_per_s']:.0f}"]
                    cells += [f"{latency[part]:.1f} ms" for part in ("p50_ms", "p99_ms")]
                    cells.append(f"{rate['cpu_per_token_us'] / 1000:.2f} ms")
                    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
        finally:
            for server in reversed(servers):
                server.stop()


def main() -> int:
    clients = [int(count) for count in os.environ.get("CLIENTS", "1,16,64").split(",")]
    seconds = int(os.environ.get("SECONDS_EACH", "10"))
    wanted = os.environ.get("DATABASES", "sqlite,postgresql").split(",")
    used = machine.cores()
    print("| database | grant | clients | tokens/s | p50 | p99 | dashboard's CPU per token |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    failed = 0
    for database in [name for name in ("SQLite", "PostgreSQL") if name.lower() in wanted]:
        try:
            measure(database, clients, seconds, used)
        except (ServerError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"{database}: {error}", file=sys.stderr)
    return 2 if failed == 2 or (failed and len(wanted) == 1) else 0


if __name__ == "__main__":
    sys.exit(main())
