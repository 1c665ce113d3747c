"""Where a run's queue is, and how it is opened: the one place that knows the backends by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

from .errors import BackendError
from .sqlite import SqliteBackend

if TYPE_CHECKING:
    from .postgres import PostgresBackend

System = Literal["sqlite", "postgresql"]
"""A database system, by the name that OpenTelemetry's conventions give it."""


@dataclass(frozen=True, slots=True)
class Database:
    """One run's database. `address`: the SQLite file, or a PostgreSQL connection string, which may hold a password;
    there the run has a `schema` of its own.
    """

    system: System
    address: str = field(repr=False)
    schema: str = ""

    def __post_init__(self) -> None:
        if self.system not in get_args(System):
            raise ValueError(f"there is no database system {self.system!r}")

    def to_dict(self) -> dict[str, str]:
        """As it is written down, its password included."""
        return asdict(self)

    def open(self) -> SqliteBackend | PostgresBackend:
        """Raises BackendError if it cannot be opened."""
        if self.system == "sqlite":
            return SqliteBackend(Path(self.address))
        backend: PostgresBackend = _postgres().PostgresBackend(self.address, self.schema)
        return backend


@contextmanager
def own_database(folder: Path, postgres: str | None = None) -> Iterator[Database]:
    """A database for one run: a file in `folder`, or a schema in the PostgreSQL database of this connection string,
    dropped at the end. Raises BackendError."""
    if postgres is None:
        yield Database("sqlite", str(folder / "queue.sqlite"))
        return
    with _postgres().own_schema(postgres) as schema:
        yield Database("postgresql", postgres, schema)


def has_password(postgres: str) -> bool:
    """Whether a PostgreSQL connection string has a password in it. Raises BackendError if it cannot be read."""
    return bool(_postgres().has_password(postgres))


def _postgres() -> ModuleType:
    """The backend by psycopg, which is an extra: imported only where it is asked for."""
    try:
        from . import postgres
    except ImportError as error:
        raise BackendError(
            "PostgreSQL needs the package psycopg, which is not installed: pip install 'fencepost[postgres]'."
        ) from error
    return postgres
