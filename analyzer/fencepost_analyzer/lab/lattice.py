"""The policies above a policy: every way to ask for more of one or several of its fields.

The values of each field are ordered in the field's own type, from the weakest promise to the strongest; a policy is
above another if no field of it promises less. What a number should be, nobody can say of all systems: the budget of
attempts is raised to the default's, for a job that has no second attempt can never be healed; times stay as they are,
since a longer lease only shifts what happens when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from fencepost_analyzer.strategies import Strategy, strategies
from fencepost_runtime.errors import PolicyError
from fencepost_runtime.policy import Policy


@dataclass(frozen=True, slots=True)
class Choice:
    """A policy of the lattice, and the fields in which it promises more than the one below all."""

    changes: Mapping[str, Any]
    policy: Policy

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(self.changes)

    def strategies(self, recorded: Policy) -> tuple[Strategy, ...]:
        """The recovery strategies that it turns on."""
        return tuple(one for one in strategies().values() if one.is_on(self.policy) and not one.is_on(recorded))

    def within(self, other: Choice) -> bool:
        """Whether the other asks for all that this one asks for."""
        return all(
            field in other.changes and _rank(field, value) <= _rank(field, other.changes[field])
            for field, value in self.changes.items()
        )


def above(recorded: Policy) -> tuple[Choice, ...]:
    """Every policy of the lattice, the recorded one first, those with few changes before those with many."""
    return tuple(sorted(_choices(recorded), key=lambda one: (len(one.changes), str(dict(one.changes)))))


def _choices(recorded: Policy) -> Iterator[Choice]:
    fields = [(name, _upwards(name, getattr(recorded, name))) for name in (*_ORDER, "max_attempts")]
    for values in product(*(ways for _, ways in fields)):
        changes = {
            name: value for (name, _), value in zip(fields, values, strict=True) if value != getattr(recorded, name)
        }
        try:
            yield Choice(MappingProxyType(changes), recorded.replace(**changes) if changes else recorded)
        except PolicyError:
            continue  # Fields that exclude each other.


def _upwards(name: str, value: Any) -> Sequence[Any]:
    if name == "max_attempts":
        return tuple(dict.fromkeys((value, max(value, Policy().max_attempts))))
    return _ORDER[name][_rank(name, value) :]


def _rank(name: str, value: Any) -> int:
    return int(value) if name == "max_attempts" else _ORDER[name].index(value)


# How two attempts of one job are spaced is no promise: `backoff` has no weaker and stronger.
_ORDER: dict[str, tuple[Any, ...]] = {
    name: (False, True) if hint is bool else get_args(hint)
    for name, hint in get_type_hints(Policy).items()
    if (hint is bool or get_args(hint)) and name != "backoff"
}
