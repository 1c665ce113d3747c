"""What a user installs: the wheel and the source archive are whole, and need only what they declare."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("runtime/fencepost_runtime", "recorder/fencepost_recorder", "analyzer/fencepost_analyzer")

# Imports every module but the ones that are programs, and the one that needs an extra, so that an undeclared import
# anywhere is found.
IMPORT_ALL = """
import importlib, pkgutil
for package in ("fencepost_runtime", "fencepost_recorder", "fencepost_analyzer"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__") and module.name != "fencepost_runtime.postgres":
            importlib.import_module(module.name)
"""
RUN_CLI = "import sys; sys.argv[0] = 'fencepost'; from fencepost_analyzer.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, into: Path) -> Built:
    run(sys.executable, "-m", "hatchling", "build", "-d", into, cwd=source)
    (wheel,), (sdist,) = into.glob("*.whl"), into.glob("*.tar.gz")
    return Built(wheel, sdist)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def sources() -> set[str]:
    """Every file of the three packages, named as an importing program sees it."""
    return {
        str(path.relative_to((ROOT / package).parent))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def requirements_of(distribution: str, extra: str = "") -> list[Requirement]:
    listed = importlib.metadata.requires(distribution) or []
    return [
        requirement
        for requirement in map(Requirement, listed)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]


def closure(extra: str = "") -> Iterator[importlib.metadata.Distribution]:
    """Every distribution that fencepost needs, directly or not; `extra` adds its own."""
    waiting = requirements_of("fencepost") + (requirements_of("fencepost", extra) if extra else [])
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        for wanted in ("", *sorted(requirement.extras)):
            key = (canonicalize_name(requirement.name), wanted)
            if key not in seen:
                seen.add(key)
                waiting += requirements_of(requirement.name, wanted)
                yield importlib.metadata.distribution(requirement.name)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_wheel_holds_every_file_of_the_packages(built: Built) -> None:
    """The wheel holds all modules, SQL, scenarios and markers of the three packages, and nothing else."""
    assert {name for name in names_in(built.wheel) if ".dist-info/" not in name} == sources()


def test_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """The source archive is enough to build the very wheel that the tree builds, and to run its tests."""
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert names_in(build(unpacked, tmp_path / "dist").wheel) == names_in(built.wheel)
    assert {"Makefile", "constraints.txt", "tests", "README.md"} <= {path.name for path in unpacked.iterdir()}


def test_everything_installed_is_pinned() -> None:
    """Whatever fencepost and its tests need, the indirect included, is pinned to what is installed."""
    installed = {canonicalize_name(found.metadata["Name"]): found.version for found in closure("test")}
    pinned = pins()
    assert installed == {name: pinned.get(name) for name in installed}


def test_constraints_hold_nothing_needless() -> None:
    """Each pin is needed by some supported Python: what is not installed here is declared for another."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = map(Requirement, project["optional-dependencies"]["test"])
    for_other_pythons = {canonicalize_name(one.name) for one in declared if one.marker is not None}
    installed = {canonicalize_name(found.metadata["Name"]) for found in closure("test")}
    assert set(pins()) - installed - for_other_pythons == set()


@pytest.fixture(scope="module")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which only the wheel and the dependencies it declares can be imported.

    The dependencies are linked file by file from the present environment, which takes no network and no time.
    """
    site = tmp_path_factory.mktemp("site")
    for distribution in closure():
        for file in distribution.files or []:
            target = site / file
            if ".." not in file.parts and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(str(distribution.locate_file(file))))
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(site)
    return {"PATH": os.defpath, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}


def test_every_module_imports_with_declared_dependencies_only(bare: dict[str, str], tmp_path: Path) -> None:
    """No module needs a package that the bare install does not declare, but the one of an extra."""
    run(sys.executable, "-S", "-s", "-c", IMPORT_ALL, cwd=tmp_path, env=bare)


def test_help_works_bare(bare: dict[str, str], tmp_path: Path) -> None:
    """`fencepost --help` works with the declared dependencies alone."""
    assert "fencepost" in run(sys.executable, "-S", "-s", "-c", RUN_CLI, "--help", cwd=tmp_path, env=bare)


def test_the_bare_install_names_the_extra_for_postgresql(bare: dict[str, str], tmp_path: Path) -> None:
    """Without psycopg `--backend postgres` is refused in one sentence that says how to get it."""
    asked = ("run", "FM-003", "--backend", "postgres", "--database", "postgresql://")
    command = (sys.executable, "-S", "-s", "-c", RUN_CLI, *asked)
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'fencepost[postgres]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.campaign
def test_bare_install_of_the_wheel(built: Built, tmp_path: Path) -> None:
    """pip installs the wheel into an empty environment, and the command that it puts there works."""
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    run(scripts / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", built.wheel)
    run(scripts / "python", "-c", IMPORT_ALL, cwd=tmp_path)
    assert "fencepost" in run(scripts / "fencepost", "--help", cwd=tmp_path)
    assert "no broken requirements" in run(scripts / "python", "-m", "pip", "check").lower()
