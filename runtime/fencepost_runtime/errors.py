"""Every error that the runtime raises, in one tree; a docstring is the default message."""

from __future__ import annotations


class RuntimeFault(Exception):
    """The runtime could not go on."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])


class PolicyError(RuntimeFault):
    """The policy is not one that the runtime knows."""

    def __init__(self, message: str | None = None, field: str | None = None) -> None:
        """`field`: the field of the policy that is wrong, where it is one."""
        super().__init__(message)
        self.field = field


class ScenarioError(RuntimeFault):
    """The scenario cannot be run as it is written."""

    def __init__(self, message: str | None = None, path: tuple[str | int, ...] = ()) -> None:
        """`path`: where in the data it is wrong, as keys and indices from the top: `("faults", 2, "step")`."""
        super().__init__(message)
        self.path = path


class BackendError(RuntimeFault):
    """The queue's database refused the step; nothing of it was applied."""


class UnknownJob(BackendError):
    """The queue has no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The queue has no job {job_id!r}.")


class ConnectionLost(RuntimeFault):
    """The reply never came: the step may or may not have been applied."""


class Diverged(RuntimeFault):
    """The simulator was told to follow a history that this policy cannot produce."""
