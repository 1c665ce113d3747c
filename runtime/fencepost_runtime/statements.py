"""Named SQL statements, read from the package's `.sql` files."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, str]:
    """The statements of `sql/{file}.sql` by name; text before the first name is the file's own comment."""
    text = files(__package__).joinpath("sql", f"{file}.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
