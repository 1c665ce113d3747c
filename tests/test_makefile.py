"""The Makefile on other machines: Pythons that do not run, none at all, a second run, a failing test.

A stand-in for Python logs how it was called, so that each test takes milliseconds and no network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make") or "make"
BASH = shutil.which("bash") or "bash"

# As a version manager's shim for a version that is switched off: there, executable, and of no use.
DEAD_PYTHON = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"

# Runs, makes environments that hold itself, and fails what the file `fails` names.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$*" in
*"-m venv"*)
    for last; do :; done
    mkdir -p "$last/bin"
    cp "$0" "$last/bin/python"
    cp "$0" "$last/bin/fencepost" ;;
esac
if [ -f fails ] && [ "$*" = "$(cat fails)" ]; then exit 7; fi
"""

INSTALL_BARE = "python -m pip install --quiet -c constraints.txt -e ."
INSTALL_TEST = "python -m pip install --quiet -c constraints.txt -e .[test]"
PYTEST = "-m pytest -n 2 --dist loadfile --max-worker-restart 0"


@dataclass(frozen=True)
class Machine:
    """A copy of the Makefile, and a PATH that holds only what a test puts there."""

    tree: Path
    path: Path

    def python(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, with no standard input as in CI."""
        (self.tree / "log").write_text("")
        env = {"PATH": str(self.path), "LOG": str(self.tree / "log"), "CI": "true"}
        return subprocess.run(
            command,
            cwd=self.tree,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What was asked of Python, but for questions whether it is usable."""
        lines = (self.tree / "log").read_text().splitlines()
        return [line for line in lines if " -c import" not in line and "--version" not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    tree, path = tmp_path / "a tree", tmp_path / "bin"
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    version = tree / "analyzer" / "fencepost_analyzer" / "version.py"
    version.parent.mkdir(parents=True)
    version.touch()
    path.mkdir()
    for tool in ("basename", "cat", "cp", "dirname", "make", "mkdir", "touch"):
        (path / tool).symlink_to(shutil.which(tool) or tool)
    return Machine(tree, path)


def test_without_python_one_sentence_says_so(machine: Machine) -> None:
    """On a machine with no usable Python, every target says in one sentence what is needed."""
    machine.python("python3.13", DEAD_PYTHON)
    done = machine.run(MAKE, "demo")
    assert done.returncode != 0
    assert done.stderr.startswith("fencepost needs Python 3.11 or newer")
    assert not (machine.tree / ".venv").exists()


def test_a_dead_shim_is_passed_over(machine: Machine) -> None:
    """A Python that is on PATH but does not run is passed over for the next that does."""
    machine.python("python3.13", DEAD_PYTHON)
    machine.python("python3.12", STAND_IN)
    assert machine.run(MAKE, "demo").returncode == 0
    assert machine.calls()[0] == "python3.12 -m venv --clear .venv"


def test_demo_installs_the_bare_package_once(machine: Machine) -> None:
    """`make demo` installs no test extra, and a second run installs nothing."""
    machine.python("python3", STAND_IN)
    machine.run(MAKE, "demo")
    assert machine.calls() == ["python3 -m venv --clear .venv", INSTALL_BARE, "fencepost demo"]
    machine.run(MAKE, "demo")
    assert machine.calls() == ["fencepost demo"]


def test_demo_then_test_share_one_environment(machine: Machine) -> None:
    """`make test` adds the extra to the environment of `make demo`, which then needs no install."""
    machine.python("python3", STAND_IN)
    machine.run(MAKE, "demo")
    machine.run(MAKE, "test")
    assert machine.calls() == [
        INSTALL_TEST,
        "python -m ruff check .",
        "python -m mypy",
        f"python {PYTEST}",
    ]
    machine.run(MAKE, "demo")
    assert machine.calls() == ["fencepost demo"]


def test_changed_pins_install_again(machine: Machine) -> None:
    """A change of the constraints is installed, into the environment that is there."""
    machine.python("python3", STAND_IN)
    machine.run(MAKE, "lint")
    stamp = (machine.tree / ".venv" / "test.stamp").stat().st_mtime
    os.utime(machine.tree / "constraints.txt", (stamp + 1, stamp + 1))
    machine.run(MAKE, "lint")
    assert machine.calls()[0] == INSTALL_TEST


def test_a_failed_install_is_tried_again(machine: Machine) -> None:
    """An install that failed leaves no stamp that says it is done."""
    machine.python("python3", STAND_IN)
    (machine.tree / "fails").write_text(INSTALL_BARE.removeprefix("python "))
    assert machine.run(MAKE, "demo").returncode != 0
    (machine.tree / "fails").unlink()
    assert machine.run(MAKE, "demo").returncode == 0
    assert machine.calls() == [INSTALL_BARE, "fencepost demo"]


@pytest.mark.parametrize("failing", ["-m ruff check .", "-m mypy", PYTEST])
def test_ci_fails_with_any_of_its_checks(machine: Machine, failing: str) -> None:
    """.ci/run ends unsuccessfully when ruff, mypy or pytest does, and successfully when none does."""
    machine.python("python3", STAND_IN)
    assert machine.run(BASH, ".ci/run").returncode == 0
    (machine.tree / "fails").write_text(failing)
    assert machine.run(BASH, ".ci/run").returncode != 0
