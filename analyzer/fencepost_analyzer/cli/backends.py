"""Which database real processes run on, as the commands that start them are asked for it."""

from __future__ import annotations

import enum
import os
from typing import Annotated

import typer

from fencepost_analyzer.cli.failures import UsageError

# Holds a connection string, which may have a password.
POSTGRES = "FENCEPOST_POSTGRES"
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="DSN",
        help=f"PostgreSQL's connection string, without a password.  [default: ${POSTGRES}]",
        show_default=False,
    ),
]


class Backend(enum.StrEnum):
    SQLITE = "sqlite"
    POSTGRES = "postgres"


def server(backend: Backend, database: str | None, *, simulate: bool = False) -> str | None:
    """The connection string of the PostgreSQL database that is asked for. Raises UsageError and BackendError."""
    if backend is not Backend.POSTGRES:
        if database is not None:
            raise UsageError("--database is a PostgreSQL database: add --backend postgres to run on it")
        return None
    if simulate:
        raise UsageError("--simulate has no database: leave out --simulate, or --backend postgres")
    found = database or os.environ.get(POSTGRES)
    if not found:
        raise UsageError(
            "--backend postgres needs a database: name it by --database postgresql://user@host:5432/database, or in "
            f"${POSTGRES}"
        )
    from fencepost_runtime.backends import has_password

    if has_password(found) and database:
        raise UsageError(
            "--database has a password, which everybody on this machine could read in the list of processes: put the "
            f"connection string into ${POSTGRES}, or the password into $PGPASSWORD or ~/.pgpass"
        )
    return found
