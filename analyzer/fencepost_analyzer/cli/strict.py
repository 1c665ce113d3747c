"""Commands that take each option once and no option empty: what a shell's slip drops or blanks is said, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class StrictCommand(TyperCommand):
    """A command whose single-value options may be given once, and not empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises BadParameter for a repeated or an empty option; else parses as ever."""
        if args and not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            options: list[Any] = list(order)
            for option in options:
                if option.param_type_name != "option" or getattr(option, "is_flag", False):
                    continue
                if not option.multiple and options.count(option) > 1:
                    raise typer.BadParameter("it is given twice: give it once", ctx=ctx, param=option)
                given = values.get(option.name)
                if "" in (given if option.multiple and isinstance(given, list) else [given]):
                    raise typer.BadParameter("it is empty: give a value, or leave it out", ctx=ctx, param=option)
        return super().parse_args(ctx, args)


class StrictTyper(typer.Typer):
    """A Typer all of whose commands are strict."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """As Typer's own."""
        return super().command(name, **{"cls": StrictCommand, **options})
