"""A policy is data: what a job system promises about acknowledgement, leases, writes and recovery.

Presets are the `.toml` files in `policies/`; adding one is adding a file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, get_args, get_type_hints

from .errors import PolicyError
from .wording import half_character, instead, shown

Ack = Literal["early", "late", "with_writes"]
Dedupe = Literal["none", "effect_key"]
Writes = Literal["stepwise", "atomic"]
Reclaim = Literal["none", "on_expiry", "guarded"]
Settle = Literal["by_job", "by_token"]
Backoff = Literal["fixed", "exponential"]

MAX_MS = 24 * 3_600_000
MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that one queue's workers follow. Times are milliseconds, attempts count from 1.

    `ack`: when a lease is settled: at delivery, after the work, or in the transaction of the writes.
    `renew`: a worker extends its lease at every third of it while it works, unless it has acknowledged already.
    `fencing`: the store refuses a write whose token is not the newest lease's.
    `dedupe`: the store refuses a second write under one effect key.
    `writes`: one transaction an effect, or one for all effects of an attempt.
    `reclaim`: never, by job as soon as a lease looks expired, or by compare-and-set on its token.
    `settle`: whether a settle must carry the current token, or merely name the job.
    """

    name: str = "custom"
    ack: Ack = "late"
    lease_ms: int = 1_000
    renew: bool = False
    fencing: bool = False
    dedupe: Dedupe = "none"
    writes: Writes = "stepwise"
    reclaim: Reclaim = "on_expiry"
    settle: Settle = "by_token"
    max_attempts: int = 3
    backoff: Backoff = "fixed"
    backoff_ms: int = 50

    def __post_init__(self) -> None:
        for field, allowed in _LITERALS.items():
            value = getattr(self, field)
            if value not in allowed:
                hint = instead(value, allowed, "it takes")
                raise PolicyError(f"Policy field {field} cannot be {shown(value)}: {hint}", field)
        for field in ("renew", "fencing"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise PolicyError(f"Policy field {field} takes true or false, not {shown(value)}.", field)
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise PolicyError(
                    f"Policy field {field} takes a whole number from {low} to {high}, not {shown(value)}.", field
                )
        if not isinstance(self.name, str) or not self.name or len(self.name) > MAX_NAME:
            rule = f"a text of 1 to {MAX_NAME} characters"
            raise PolicyError(f"A policy's name is {rule}, not {shown(self.name)}.", "name")
        if half_character(self.name):
            raise PolicyError(f"A policy's name {shown(self.name)} holds half a character: no file can.", "name")
        if self.ack == "with_writes" and self.writes != "atomic":
            raise PolicyError(
                'ack = "with_writes" settles inside the transaction of the writes: set writes = "atomic".', "ack"
            )

    @property
    def renews(self) -> bool:
        """Whether there is a lease to renew while the work lasts: an early acknowledgement has ended it."""
        return self.renew and self.ack != "early"

    def backoff_before(self, attempt: int) -> int:
        """Milliseconds from a failed `attempt` (1-based) to the moment the job may be leased again; a day at most."""
        if self.backoff == "fixed":
            return self.backoff_ms
        return int(min(self.backoff_ms * 2 ** (attempt - 1), MAX_MS))

    def replace(self, **changes: Any) -> Policy:
        """This policy with some fields changed. Raises PolicyError for unknown fields or values."""
        _reject_unknown(changes)
        return replace(self, **{"name": f"{self.name.rstrip('*')[: MAX_NAME - 1]}*", **changes})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """Raises PolicyError for an unknown field or a value that a field does not take."""
        if not isinstance(data, Mapping):
            raise PolicyError(f"A policy is a preset's name or a table of {', '.join(_FIELDS)}, not {shown(data)}.")
        _reject_unknown(data)
        return cls(**data)


_LITERALS: dict[str, tuple[str, ...]] = {
    name: get_args(hint) for name, hint in get_type_hints(Policy).items() if get_args(hint)
}
_RANGES = {"lease_ms": (10, MAX_MS), "max_attempts": (1, 1_000), "backoff_ms": (0, MAX_MS)}
_FIELDS = tuple(field.name for field in fields(Policy))


def _reject_unknown(data: Mapping[str, Any]) -> None:
    for key in data:
        if key not in _FIELDS:
            raise PolicyError(f"A policy has no field {shown(key)}: {instead(key, _FIELDS)}", key)


@cache
def presets() -> Mapping[str, Policy]:
    """Every preset by name, in the order of the names."""
    found = {}
    for path in sorted(files(__package__).joinpath("policies").iterdir(), key=lambda entry: entry.name):
        if path.name.endswith(".toml"):
            name = path.name.removesuffix(".toml")
            data = tomllib.loads(path.read_text("utf-8"))
            data.pop("about", None)
            found[name] = Policy.from_dict({"name": name, **data})
    return MappingProxyType(found)


@cache
def about(name: str) -> str:
    """One sentence on a preset: what it stands for and where the setting was seen."""
    preset(name)
    text = files(__package__).joinpath("policies", f"{name}.toml").read_text("utf-8")
    return str(tomllib.loads(text)["about"])


def preset(name: str) -> Policy:
    """The preset called `name`. Raises PolicyError, naming the nearest, if there is none."""
    known = presets()
    if name not in known:
        raise PolicyError(f"There is no policy {shown(name)}: {instead(name, known)}")
    return known[name]
