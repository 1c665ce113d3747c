"""The shapes of work: what effects a job has, read from `workloads.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from .errors import ScenarioError
from .operations import Effect, Job
from .wording import instead, shown


@cache
def workloads() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files(__package__).joinpath("workloads.toml").read_text("utf-8"))


def jobs(workload: str, count: int, queue: str, work_ms: int = 0) -> tuple[Job, ...]:
    """`count` jobs of one shape, named `{shape's job}-1` and on. Raises ScenarioError for an unknown shape."""
    shape = workloads().get(workload)
    if shape is None:
        raise ScenarioError(f"There is no workload {shown(workload)}: {instead(workload, workloads())}")
    return tuple(_job(shape, f"{shape['job']}-{number}", queue, work_ms) for number in range(1, count + 1))


def _job(shape: dict[str, Any], job_id: str, queue: str, work_ms: int) -> Job:
    effects = tuple(
        Effect(effect["key"].format(job=job_id), effect["account"].format(job=job_id), effect["amount"])
        for effect in shape["effects"]
    )
    return Job(job_id, queue, shape["job"], effects, work_ms)
