"""How messages name what a user wrote, and what could have been meant."""

from __future__ import annotations

import pytest

from fencepost_runtime.wording import MAX_NAMES, MAX_SHOWN, instead, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("naive", "'naive'"),
        (7, "7"),
        (None, "None"),
        ("日本 é", "'日本 é'"),
        ("\x1b[2J\n", r"'\x1b[2J\n'"),
        ("\u202e", r"'\u202e'"),
        ("\ud800", r"'\ud800'"),
        ("x" * (MAX_SHOWN - 2), "'" + "x" * (MAX_SHOWN - 2) + "'"),
        ("x" * (MAX_SHOWN - 1), "'" + "x" * (MAX_SHOWN - 2) + "…"),
    ],
)
def test_a_value_is_shown_escaped_and_short(value: object, text: str) -> None:
    """A value is shown as Python writes it, so that nothing in it reaches a terminal; a long one is cut."""
    assert shown(value) == text
    assert shown(value).isprintable()
    assert len(shown(value)) <= MAX_SHOWN


def test_the_nearest_is_named() -> None:
    """Of several names that are close only the nearest is named."""
    assert instead("fence", ["fenced", "fences!", "naive"]) == "did you mean fenced?"
    assert instead(None, ["none", "all"]) == "did you mean none?"


def test_without_a_near_one_all_are_named() -> None:
    """If no name is close all are listed, in their order, but no more than a reader takes in."""
    names = [f"name-{number}" for number in range(MAX_NAMES + 1)]
    assert instead("zzz", names[:2]) == "there are name-0, name-1."
    assert instead("zzz", names[:2], "it takes") == "it takes name-0, name-1."
    assert instead("zzz", names[:-1]) == f"there are {', '.join(names[:-1])}."
    assert instead("zzz", names) == f"there are {', '.join(names[:-1])}, …."


def test_known_names_are_escaped_too() -> None:
    """Names that users gave are as little trusted as what they wrote instead."""
    assert instead("job\x1b", ["job\x1b1"]) == r"did you mean job\x1b1?"
    assert instead("zzz", ["a\nb"]) == r"there are a\nb."
