"""Where a scenario is wrong: the path of keys and indices that leads there."""

from __future__ import annotations

from typing import Any

import pytest

from fencepost_runtime.errors import ScenarioError
from fencepost_runtime.scenario import Scenario

JOB: dict[str, Any] = {"id": "a", "effects": [{"key": "k", "amount": 1}, {"key": "l", "amount": 1}]}
QUEUE = {"name": "q", "jobs": [JOB, {"id": "b"}]}
COUNTED = {"name": "c", "workload": "payments", "jobs": 2}
POINT = {"job": "a", "attempt": 1, "step": "write", "index": 1}
KILL = {"kind": "kill", **POINT}
UNTIL = {"job": "a", "attempt": 2, "step": "settle"}
WHOLE = {"id": "s", "queues": [QUEUE, COUNTED], "faults": [KILL, {"kind": "pause", **POINT, "until": UNTIL}]}


def _with(path: tuple[str | int, ...], value: Any, inside: Any = WHOLE) -> Any:
    """The data with another value at a path."""
    if not path:
        return value
    key, *rest = path
    if isinstance(inside, list):
        return [_with(tuple(rest), value, one) if number == key else one for number, one in enumerate(inside)]
    return {**inside, key: _with(tuple(rest), value, inside.get(key, {}))}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("id",), 7),
        (("id",), ""),
        (("sed",), 1),
        (("poll_ms",), 0),
        (("queues",), "q"),
        (("queues",), []),
        (("queues", 0), 5),
        (("queues", 1, "name"), "q"),
        (("queues", 1, "workers"), 0),
        (("queues", 1, "worker"), 1),
        (("queues", 1, "workload"), "payment"),
        (("queues", 1, "jobs"), 0),
        (("queues", 0, "workload"), "payments"),
        (("queues", 0, "policy"), "naiv"),
        (("queues", 0, "policy"), 5),
        (("queues", 0, "policy", "lease"), 5),
        (("queues", 0, "policy", "lease_ms"), 5),
        (("queues", 0, "policy", "ack"), "with_writes"),
        (("queues", 0, "policy", "fencing"), 1),
        (("queues", 0, "policy", "name"), "\ud800"),
        (("queues", 0, "jobs", 1), "b"),
        (("queues", 0, "jobs", 1, "id"), "a"),
        (("queues", 0, "jobs", 1, "id"), "pay-2"),
        (("queues", 0, "jobs", 1, "work_ms"), -1),
        (("queues", 0, "jobs", 0, "effects"), {}),
        (("queues", 0, "jobs", 0, "effects", 1, "amount"), "1"),
        (("queues", 0, "jobs", 0, "effects", 1, "key"), "k"),
        (("queues", 0, "jobs", 0, "effects", 1, "amout"), 1),
        (("faults",), {}),
        (("faults", 1), "pause"),
        (("faults", 0, "kind"), "kil"),
        (("faults", 1, "step"), "writ"),
        (("faults", 1, "step"), "scan"),
        (("faults", 1, "when"), "begun"),
        (("faults", 0, "attempt"), 0),
        (("faults", 0, "index"), 2),
        (("faults", 0, "job"), "x"),
        (("faults", 0, "jb"), "x"),
        (("faults", 0, "until"), UNTIL),
        (("faults", 1, "until", "job"), "x"),
        (("faults", 1, "until", "step"), "work"),
        (("faults", 1, "until", "when"), "before"),
        (("faults", 1, "at_most_ms"), 0),
    ],
)
def test_an_error_says_where_it_is(path: tuple[str | int, ...], value: Any) -> None:
    """Whatever is put into a scenario that does not belong there, the error's path leads to it."""
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_dict(_with(path, value))
    # A job of a name that is there already is wrong where it comes the second time.
    assert caught.value.path == (("queues", 1, "jobs", 1, "id") if value == "pay-2" else path)


def test_the_path_leads_into_a_point_of_its_own() -> None:
    """Where a fault's point is a table of its own, as `to_dict` writes it, the path goes through it."""
    data = Scenario.from_dict(WHOLE).to_dict()
    data["faults"][1]["at"]["step"] = "writ"
    with pytest.raises(ScenarioError) as caught:
        Scenario.from_dict(data)
    assert caught.value.path == ("faults", 1, "at", "step")


def test_a_misspelled_field_of_a_fault_is_told_by_the_fields_that_people_write() -> None:
    """The hint names the fields that stand beside the kind, not the table that they are kept in."""
    with pytest.raises(ScenarioError, match="no field 'stp': did you mean step"):
        Scenario.from_dict(_with(("faults", 0, "stp"), "write"))


def test_fields_that_the_caller_reads_are_left_to_it() -> None:
    """`also` names them: they are no error, and a misspelling may be told by them."""
    assert Scenario.from_dict({**WHOLE, "seed": "anything"}, also=("seed",)) == Scenario.from_dict(WHOLE)
    with pytest.raises(ScenarioError, match="did you mean seed"):
        Scenario.from_dict({**WHOLE, "sed": 7}, also=("seed",))
