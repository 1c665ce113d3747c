"""Random small scenarios: any workload, any preset or a variation of it, any faults near where the work is."""

from __future__ import annotations

import random
from typing import Any

from fencepost_runtime.policy import preset, presets
from fencepost_runtime.scenario import KINDS, Scenario

SHAPES = {"payments": ("pay", 3), "ai-pipeline": ("doc", 4), "relayer": ("block", 2), "background": ("mail", 2)}
TELLING = ("enqueue", "write", "apply", "renew", "settle", "retry", "reclaim")
OUTSIDE_ATTEMPTS = ("enqueue", "reclaim")


def _fault(rng: random.Random, kind: str, job: str, effects: int) -> dict[str, Any]:
    """Any fault that a scenario may hold, near where the work is."""
    attempt = rng.randint(1, 2)
    fault: dict[str, Any] = {"kind": kind, "job": job, "attempt": attempt}
    if kind == "slow":
        return fault | {
            "step": "work",
            "index": rng.randint(0, effects),
            "at_most_ms": rng.choice([100, 400, 1200, 3000]),
        }
    inside = ("start", "write", "settle", "finish", "work", "retry", "apply", "renew")
    step = rng.choice(inside if kind in ("kill", "pause") else TELLING)
    fault |= {"step": step, "index": rng.randint(0, effects - 1) if step == "write" else 0}
    if step in OUTSIDE_ATTEMPTS:
        fault["attempt"] = 0
    if kind in ("kill", "pause"):
        inside_step = ["begun", "committed"] if kind == "kill" and step in TELLING else []
        fault["when"] = rng.choice(["before", "after", *inside_step])
    if kind == "pause":
        fault["at_most_ms"] = rng.choice([300, 1500, 5000])
        if rng.random() < 0.5:
            fault["until"] = {"job": job, "attempt": attempt + 1, "step": rng.choice(["write", "settle"])}
    return fault


def any_scenario(rng: random.Random) -> Scenario:
    """A random small scenario with up to three faults, under any preset or a variation of it."""
    workload = rng.choice(list(SHAPES))
    job, effects = SHAPES[workload]
    jobs = rng.randint(1, 3)
    faults = [
        _fault(rng, rng.choice(list(KINDS)), f"{job}-{rng.randint(1, jobs)}", effects) for _ in range(rng.randint(0, 3))
    ]
    policy = preset(rng.choice(list(presets())))
    if rng.random() < 0.3:
        policy = policy.replace(
            reclaim=rng.choice(["none", "on_expiry", "guarded"]), settle=rng.choice(["by_job", "by_token"])
        )
    queue = {
        "name": "q",
        "workload": workload,
        "jobs": jobs,
        "workers": rng.randint(1, 3),
        "policy": policy.to_dict(),
        "work_ms": rng.choice([0, 0, 500, 1500]),
    }
    return Scenario.from_dict({"id": "any", "queues": [queue], "faults": faults})
