"""The style of the house, as tests: who may import whom, what lies where, how long a module may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "fencepost_runtime": ROOT / "runtime" / "fencepost_runtime",
    "fencepost_recorder": ROOT / "recorder" / "fencepost_recorder",
    "fencepost_analyzer": ROOT / "analyzer" / "fencepost_analyzer",
}

# What each package may import beside the standard library and itself. The arrows of the house are the first
# entries: the analyzer knows the other two, and those two do not know each other.
ALLOWED = {
    # Only what opentelemetry-api holds: the runtime is recorded like any foreign system. And one extra.
    "fencepost_runtime": (
        "opentelemetry.context",
        "opentelemetry.propagate",
        "opentelemetry.trace",
        "opentelemetry.util.types",
        "psycopg",
    ),
    "fencepost_recorder": (
        "google.protobuf",
        "opentelemetry.context",
        "opentelemetry.proto",
        "opentelemetry.sdk",
        "opentelemetry.trace",
        "opentelemetry.util.types",
        "pyarrow",
    ),
    "fencepost_analyzer": (
        "duckdb",
        "fencepost_recorder",
        "fencepost_runtime",
        "opentelemetry",
        "pyarrow",
        "rich",
        "typer",
    ),
}

TOP_LEVEL = {
    *("analyzer", "docs", "postmortems", "recorder", "runtime", "tests"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"),
    *("constraints.txt", "pyproject.toml"),
}

MAX_LINES = 500

# Cut in half, so that this file does not name what it looks for.
REGISTRIES = tuple(
    left + right
    for left, right in (
        ("pypi.", "org"),
        ("python", "hosted.org"),
        ("registry.", "npmjs"),
        ("deb.", "debian.org"),
        ("index-", "url"),
        ("find-", "links"),
    )
)


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def tracked() -> list[str]:
    """The files that git knows, or would know after `git add`; an unpacked source archive has no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for top in TOP_LEVEL for path in files_below(ROOT / top)]
    return sorted(name for name in names if (ROOT / name).is_file())


def files_below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Every absolute import of a module, those inside functions and `TYPE_CHECKING` blocks included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            # `from opentelemetry import sdk` is an import of opentelemetry.sdk.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def forbidden_imports(package: str, path: Path) -> list[str]:
    allowed = (package, *ALLOWED[package])
    return [
        f"{path.name}:{line} imports {name}"
        for line, name in imported_names(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not any(is_below(name, prefix) for prefix in allowed)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    """The analyzer imports the recorder and the runtime, which know neither it nor each other."""
    assert [line for path in modules(package) for line in forbidden_imports(package, path)] == []


def test_a_hidden_import_against_the_arrow_is_found(tmp_path: Path) -> None:
    """An import inside a function, or by its parent's name, does not escape the check of the arrows."""
    culprit = tmp_path / "culprit.py"
    culprit.write_text(
        "import json\n"
        "from . import own\n"
        "from opentelemetry import trace\n"
        "def later():\n"
        "    import fencepost_recorder.wal\n"
        "    from opentelemetry import sdk\n"
    )
    assert forbidden_imports("fencepost_runtime", culprit) == [
        "culprit.py:5 imports fencepost_recorder.wal",
        "culprit.py:6 imports opentelemetry.sdk",
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed_for_its_users(package: str) -> None:
    """Each import package ships py.typed, so that its users' type checkers read its annotations."""
    assert (PACKAGES[package] / "py.typed").is_file()


def test_no_stray_names_at_the_top() -> None:
    """The top level holds only the rooms of the house, its papers and dotfiles."""
    tops = {name.split("/")[0] for name in tracked()}
    assert {top for top in tops - TOP_LEVEL if not top.startswith(".")} == set()


def test_no_module_outgrows_its_reader() -> None:
    """No Python or SQL file, tests included, is longer than five hundred lines."""
    long = {
        name: lines
        for name in tracked()
        if name.endswith((".py", ".sql")) and (lines := len((ROOT / name).read_text("utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_registry_is_named() -> None:
    """No file says where packages come from: that is the business of the machine that installs them."""
    named = [
        f"{name}: {registry}"
        for name in tracked()
        if not (ROOT / name).is_symlink()
        for registry in REGISTRIES
        if registry.encode() in (ROOT / name).read_bytes()
    ]
    assert named == []


def test_every_requirement_is_pinned_to_one_version() -> None:
    """constraints.txt has one line a package, `name==version`, sorted, with no address and no hash."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    names = [line.split("==")[0] for line in lines]
    assert [line for line in lines if line.count("==") != 1 or set(line) & set(" @;/:")] == []
    assert names == sorted(set(names), key=str.casefold)
