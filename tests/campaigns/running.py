"""Runs campaigns in a process of their own, which forks, mounts and kills, and hands on what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from campaigns.scale import VARIABLE, Figure

# Taken when the tests are collected: a test itself sees a bare environment.
FULL = os.environ.get(VARIABLE, "1.0")
# Of the normal run: a few crashes of each sort.
SAMPLE = "0.002"


def campaign(*names: str, scale: str = SAMPLE) -> list[Figure]:
    """Run campaigns at a scale, and print each figure as it comes; all of them."""
    command = [sys.executable, str(Path(__file__).parent), *names]
    with subprocess.Popen(command, env={**os.environ, VARIABLE: scale}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        figures = []
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            figures.append(json.loads(line))
    assert process.returncode in (0, 1), f"a campaign ended with exit code {process.returncode}"
    return figures
