"""What every connection shares, whichever way it came in."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from fencepost_recorder.receiver.answers import Problem, Refusal
from fencepost_recorder.receiver.intake import Intake
from fencepost_recorder.receiver.limits import Budget, Limits


@dataclass(frozen=True, slots=True)
class Desk:
    """The intake, and what guards it."""

    intake: Intake
    limits: Limits
    budget: Budget
    token: str | None
    stopping: Callable[[], bool]
    busy: Callable[[], None]

    def authenticate(self, authorization: str) -> None:
        """Raise Refusal unless the header, or the metadata of gRPC, bears the token; in time that tells nothing."""
        if self.token is None:
            return
        scheme, _, given = authorization.partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise Refusal(Problem.UNAUTHENTICATED, "the bearer token is missing or wrong: send Authorization: Bearer …")
