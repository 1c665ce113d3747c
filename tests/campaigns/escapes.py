"""Does anything change a recording past the tap? The kernel's own list of system calls, by strace, is the judge."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from campaigns import living
from campaigns.scale import Figure, figure, not_run
from campaigns.works import WORKS

_CALLS = {
    "write": "write",
    "writev": "write",
    "pwrite64": "pwrite",
    "pwritev": "pwrite",
    "pwritev2": "pwrite",
    "fsync": "sync",
    "fdatasync": "datasync",
    "linkat": "link",
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
    "unlink": "unlink",
    "unlinkat": "unlink",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "rmdir": "rmdir",
    "ftruncate": "truncate",
    "truncate": "truncate",
}
# Of a call that changes names or bytes and is not in the table above, nothing is known: it is an escape.
_OTHERS = ("link", "symlink", "symlinkat", "copy_file_range", "sendfile", "fallocate", "mknod", "mknodat")
# Of a file that had no name when it was opened; it keeps this one here when it is given another.
_UNNAMED = re.compile(r"<[^>]*/#\d+>\(deleted\)")
_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+)")


def escaping() -> Iterator[Figure]:
    """Of each work: how many operations went past the tap."""
    if shutil.which("strace") is None:
        yield not_run("operations past the tap", "strace is not installed")
        return
    for work in WORKS:
        with tempfile.TemporaryDirectory(prefix="fencepost-") as scratch:
            seen, called = _compared(work.name, Path(scratch))
        escaped = {kind: count for kind in called | seen if (count := abs(called[kind] - seen[kind]))}
        yield figure(
            f"operations past the tap, {work.name}",
            sum(seen.values()),
            "operations",
            missed=sum(escaped.values()),
            which=escaped,
        )


def _compared(work: str, scratch: Path) -> tuple[Counter[str], Counter[str]]:
    root, log = scratch / "root", scratch / "strace"
    root.mkdir()
    calls = ",".join(f"?{name}" for name in (*_CALLS, *_OTHERS))
    command = living.command(work, root, scratch / "ledger")
    # A file for each thread: in one for all, a call during which another thread is heard of is told in two pieces.
    done = subprocess.run(
        ["strace", "-ff", "-qq", "-y", "-s", "0", "-e", f"trace={calls}", "-o", log, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logs = "".join(one.read_text() for one in sorted(scratch.glob("strace.*")))
    return Counter(json.loads(done.stdout)), _called(logs, str(root.resolve()))


def _called(log: str, root: str) -> Counter[str]:
    found: Counter[str] = Counter()
    linked: set[str] = set()
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None or (f"{root}/" not in match[2] and f"{root}>" not in match[2]) or int(match[3]) < 0:
            continue
        kind = _CALLS.get(match[1], "another")
        if (unnamed := _UNNAMED.search(match[2])) is not None:
            # Until it has a name, nothing that is done to it changes the recording.
            if kind == "link":
                linked.add(unnamed[0])
            elif unnamed[0] not in linked:
                continue
        if match[1] == "unlinkat" and "AT_REMOVEDIR" in match[2]:
            kind = "rmdir"
        found[kind] += 1
    return found
