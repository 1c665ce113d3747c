"""Policies as data: presets, round trips, and one sentence for everything that is no policy."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.support import one_sentence

from fencepost_runtime.errors import PolicyError, RuntimeFault
from fencepost_runtime.policy import MAX_MS, Policy, about, preset, presets

LITERALS = {name: get_args(hint) for name, hint in get_type_hints(Policy).items() if get_args(hint)}
BOOLEANS = ("renew", "fencing")
NUMBERS = {"lease_ms": (10, MAX_MS), "max_attempts": (1, 1_000), "backoff_ms": (0, MAX_MS)}


def refusal(data: Any) -> str:
    """What is said of data that is no policy."""
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(data)
    assert isinstance(caught.value, RuntimeFault)
    return one_sentence(caught.value)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    values: dict[str, Any] = {name: draw(st.sampled_from(allowed)) for name, allowed in LITERALS.items()}
    values |= {name: draw(st.booleans()) for name in BOOLEANS}
    values |= {name: draw(st.integers(*bounds)) for name, bounds in NUMBERS.items()}
    if values["ack"] == "with_writes":
        values["writes"] = "atomic"
    return Policy(name=draw(st.text(min_size=1, max_size=64)), **values)


@given(policies())
def test_a_policy_survives_its_round_trip(policy: Policy) -> None:
    """Written to plain data and read back, a policy is the same."""
    assert Policy.from_dict(policy.to_dict()) == policy


def test_every_field_is_tested_here() -> None:
    """Each field is a choice, a switch, a number or the name: a new one must find its place in these tests."""
    assert {field.name for field in fields(Policy)} == {"name", *LITERALS, *BOOLEANS, *NUMBERS}


def test_the_default_is_naive() -> None:
    """A policy of which nothing is said is the naive preset."""
    assert Policy.from_dict({"name": "naive"}) == Policy(name="naive") == preset("naive")
    assert preset("naive").to_dict() == {
        **{"name": "naive", "ack": "late", "lease_ms": 1_000, "renew": False, "fencing": False, "dedupe": "none"},
        **{"writes": "stepwise", "reclaim": "on_expiry", "settle": "by_token"},
        **{"max_attempts": 3, "backoff": "fixed", "backoff_ms": 50},
    }
    assert MAX_MS == 24 * 60 * 60 * 1_000


@pytest.mark.parametrize("field", LITERALS)
def test_a_misspelt_choice_names_the_nearest(field: str) -> None:
    """A value one letter off is refused with the field, the value and the one that was meant."""
    for choice in LITERALS[field]:
        said = refusal({field: choice + "x"})
        assert f"field {field} cannot be '{choice}x': did you mean {choice}?" in said


@pytest.mark.parametrize("field", LITERALS)
@pytest.mark.parametrize("value", ["zzzz", "", 1, True, [], {}, 1.5])
def test_a_choice_of_another_kind_names_all(field: str, value: Any) -> None:
    """A value that is like none is refused with all those that the field takes."""
    assert refusal({field: value}).endswith(f": it takes {', '.join(LITERALS[field])}.")


@pytest.mark.parametrize("field", BOOLEANS)
@pytest.mark.parametrize("value", [0, 1, "true", None, [], 1.0])
def test_a_switch_takes_true_or_false(field: str, value: Any) -> None:
    """What is nearly a truth value is refused."""
    assert f"field {field} takes true or false, not {value!r}." in refusal({field: value})


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_has_bounds(field: str) -> None:
    """The bounds of a number are allowed, what lies beyond is not, nor is anything but a whole number."""
    low, high = NUMBERS[field]
    assert [getattr(Policy.from_dict({field: value}), field) for value in (low, high)] == [low, high]
    for value in (low - 1, high + 1, float(low), str(low), True, None, [low], float("nan")):
        assert f"field {field} takes a whole number from {low} to {high}, not {value!r}." in refusal({field: value})


@pytest.mark.parametrize("name", ["", "x" * 65, 7, None, b"bytes"])
def test_a_name_is_a_short_text(name: Any) -> None:
    """A policy's name has one to sixty-four characters."""
    assert "name is a text of 1 to 64 characters" in refusal({"name": name})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lease", "did you mean lease_ms?"),
        ("fence", "did you mean fencing?"),
        ("Renew", "did you mean renew?"),
        ("zzz", "there are name, ack, lease_ms"),
        (7, "there are name, ack, lease_ms"),
        ("", "there are name, ack, lease_ms"),
        ("about", "there are name, ack, lease_ms"),
    ],
)
def test_an_unknown_field_names_the_nearest(key: Any, hint: str) -> None:
    """A field that does not exist is refused with the one that was meant, or with all."""
    assert f"has no field {key!r}: {hint}" in refusal({key: 1})


@pytest.mark.parametrize("data", [None, 5, "naive", ["ack"], [("ack", "late")], True])
def test_a_policy_is_a_table(data: Any) -> None:
    """What is no table is refused as such, not by a traceback."""
    assert refusal(data).startswith("A policy is a preset's name or a table of name, ack, ")


def test_a_settle_in_the_writes_needs_one_transaction() -> None:
    """Settling with the writes is refused unless the writes are one transaction."""
    assert 'set writes = "atomic"' in refusal({"ack": "with_writes"})
    assert Policy.from_dict({"ack": "with_writes", "writes": "atomic"}).ack == "with_writes"


def test_hostile_values_are_shown_escaped_and_short() -> None:
    """A value with terminal escapes, or one that goes on for ever, does not reach the screen as it is."""
    said = refusal({"ack": "\x1b[31m" + "x" * 10_000})
    assert "\x1b" not in said
    assert len(said) < 300
    assert "\x1b" not in refusal({"\x1b[2J\n": 1})


def test_a_changed_policy_says_so() -> None:
    """A policy with changed fields is marked as no longer the preset unless it is named; changes are checked."""
    changed = preset("naive").replace(fencing=True)
    assert (changed.name, changed.fencing, changed.renew) == ("naive*", True, False)
    assert changed.replace(renew=True).name == "naive*"
    assert preset("naive").replace(name="mine").name == "mine"
    assert Policy(name="x" * 64).replace(renew=True).name == "x" * 63 + "*"
    with pytest.raises(PolicyError, match="did you mean fencing"):
        preset("naive").replace(fence=True)
    with pytest.raises(PolicyError, match="takes true or false"):
        preset("naive").replace(fencing="yes")


def test_backoff_is_fixed_or_doubles_up_to_a_day() -> None:
    """A fixed backoff is the same for each attempt; an exponential one doubles, and never passes a day."""
    fixed, doubling = Policy(backoff_ms=70), Policy(backoff_ms=70, backoff="exponential")
    assert [fixed.backoff_before(attempt) for attempt in (1, 2, 9)] == [70, 70, 70]
    assert [doubling.backoff_before(attempt) for attempt in (1, 2, 3, 4)] == [70, 140, 280, 560]
    assert doubling.backoff_before(1_000) == MAX_MS
    assert Policy(backoff_ms=0, backoff="exponential").backoff_before(1_000) == 0


@pytest.mark.parametrize(("ack", "renews"), [("early", False), ("late", True)])
def test_there_is_nothing_to_renew_after_an_early_settle(ack: str, renews: bool) -> None:
    """A policy renews only while there is a lease: not after an early acknowledgement."""
    assert Policy.from_dict({"ack": ack, "renew": True}).renews == renews
    assert not Policy.from_dict({"ack": ack}).renews


@pytest.mark.parametrize("name", presets())
def test_a_preset_says_what_it_stands_for(name: str) -> None:
    """Each preset is a policy of its own name, with a sentence about it, and a file of known fields only."""
    policy = preset(name)
    assert policy.name == name
    assert about(name).endswith(".")
    assert 20 < len(about(name)) < 200
    data = tomllib.loads(files("fencepost_runtime").joinpath("policies", f"{name}.toml").read_text("utf-8"))
    assert Policy.from_dict({"name": name, **{key: value for key, value in data.items() if key != "about"}}) == policy


def test_presets_are_different_and_sorted() -> None:
    """No two presets are one policy under two names; they come in the order of their names; nobody adds to them."""
    known = presets()
    assert list(known) == sorted(known)
    assert {"naive", "early-ack", "renewed", "fenced", "deduped", "atomic", "transactional", "safe"} <= set(known)
    rules = [policy.to_dict() | {"name": ""} for policy in known.values()]
    assert all(rules.count(rule) == 1 for rule in rules)
    assert isinstance(known, Mapping)
    with pytest.raises(TypeError):
        operator.setitem(known, "mine", Policy())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("naiv", "did you mean naive?"), ("celery", "did you mean celery-redis?"), ("zzz", "there are atomic")],
)
def test_an_unknown_preset_names_the_nearest(name: str, hint: str) -> None:
    """A preset that does not exist is refused with the nearest or with all; so is what is said about it."""
    for look in (preset, about):
        with pytest.raises(PolicyError) as caught:
            look(name)
        assert f"no policy '{name}': {hint}" in one_sentence(caught.value)
