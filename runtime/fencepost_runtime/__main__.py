"""`python -m fencepost_runtime SPEC.json`: run one scenario, on processes or simulated, and tell it in spans."""

from __future__ import annotations

import sys
from pathlib import Path

from fencepost_runtime.errors import RuntimeFault
from fencepost_runtime.processes import Spec, flush, hook
from fencepost_runtime.simulate import simulate
from fencepost_runtime.spans import SpanSink, announce
from fencepost_runtime.supervisor import OVERDUE, Supervisor
from fencepost_runtime.world import EPOCH


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0, 2 with one sentence on standard error, or the supervisor's INTERRUPTED or OVERDUE."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m fencepost_runtime SPEC.json\n")
        return 2
    try:
        spec = Spec.read(Path(arguments[0]))
        return _simulated(spec) if spec.simulated else Supervisor(spec).run()
    except RuntimeFault as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _simulated(spec: Spec) -> int:
    hook(spec.telemetry)("simulator")
    announce(spec.scenario.id, spec.seed, spec.scenario.to_json(), EPOCH)
    ended = simulate(spec.scenario, SpanSink(), spec.seed)
    flush()
    return OVERDUE if ended.overdue else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
