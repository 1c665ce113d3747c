"""A job as the text that a queue stores."""

from __future__ import annotations

import json
from dataclasses import asdict

from .operations import Effect, Job


def dump(job: Job) -> str:
    return json.dumps(asdict(job), separators=(",", ":"))


def load(text: str) -> Job:
    data = json.loads(text)
    effects = tuple(Effect(**effect) for effect in data.pop("effects"))
    return Job(effects=effects, **data)
