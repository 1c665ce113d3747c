"""Untrusted text is shown, never obeyed; numbers and times read well."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from analyzer.lab import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from fencepost_analyzer import text

ANYTHING = st.text(st.characters(), max_size=400)


@given(ANYTHING)
def test_safe_text_is_printable(value: str) -> None:
    """Whatever goes in, only printable characters come out, and no more than four accents on one letter."""
    shown = text.safe(value)
    assert shown.isprintable()
    marks = "".join("m" if unicodedata.category(one) in ("Mn", "Me") else "." for one in shown)
    assert "mmmmm" not in marks


@given(ANYTHING)
def test_safe_text_is_idempotent_and_bounded(value: str) -> None:
    """Making safe text safe again changes nothing but its length."""
    assert text.safe(text.safe(value, None), None) == text.safe(value, None)
    assert len(text.safe("x" * 10_000)) == text.LIMIT


def test_plain_text_stays_as_it_is() -> None:
    """Ordinary names in any script are not touched."""
    for name in ("pay-1/debit", "größe", "支払い", "naïve café", "µs → …"):
        assert text.safe(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_nothing_in_markdown(name: str) -> None:
    """In a page it cannot begin a tag, a link, code, a heading, a table cell or a second line."""
    made = text.markdown(name, None)
    bare = re.sub(r"\\.|&[a-z]+;|&#[0-9]+;", "", made)
    assert not set(bare) & set("<>`*_[]|@~#$")
    assert made.isprintable()
    assert "://" not in made


@pytest.mark.parametrize("name", [*HOSTILE, "`", "``", "a`b", "a|b", "", " "])
def test_hostile_text_does_not_leave_inline_code(name: str) -> None:
    """Inline code ends where its own fence does, and not in its middle."""
    made = text.code(name, None)
    fence = re.match("`+", made)
    assert fence is not None
    inner = made[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inner)
    assert made.endswith(fence[0])
    assert "|" not in inner.replace("\\|", "")


def test_a_message_becomes_one_sentence() -> None:
    """Errors of several lines, without a full stop or without any words come out as one line that ends."""
    assert text.sentence("the disk\n  is full") == "the disk is full."
    assert text.sentence("really?") == "really?"
    assert text.sentence("") == "something went wrong."


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [
        (0, "0.0 ms"),
        (400_000, "0.4 ms"),
        (999_900_000, "999.9 ms"),
        (1_250_000_000, "1.25 s"),
        (200_000_000_000, "3 min 20 s"),
        (90_000_000_000_000, "25 h 0 min"),
    ],
)
def test_durations_have_the_unit_that_suits_them(nanoseconds: int, words: str) -> None:
    """A length of time is told in milliseconds, seconds, minutes or hours."""
    assert text.duration(nanoseconds) == words


def test_counts_sizes_moments_and_lists_read_well() -> None:
    """One is singular, none is "no", sizes have units, moments are UTC wherever they come from."""
    assert [text.counted(number, "span") for number in (0, 1, 12_345)] == ["no spans", "1 span", "12,345 spans"]
    assert [text.size(number) for number in (812, 3_400, 1_200_000, 4_300_000_000)] == [
        *("812 B", "3.4 kB", "1.2 MB", "4.3 GB"),
    ]
    east = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert text.moment(east) == text.moment(east.astimezone(UTC)) == "2026-01-02 01:04:05 UTC"
    assert [text.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        *("none", "a", "a and b", "a, b and c"),
    ]


def test_width_counts_columns_not_characters() -> None:
    """Wide characters take two columns, accents none."""
    assert [text.width(one) for one in ("abc", "支払", "e\u0301")] == [3, 4, 1]


def test_the_nearest_names_are_offered() -> None:
    """A misspelt name meets its nearest, whatever its case; a strange one is told where to look."""
    assert "INV-001" in text.nearest("inv-01", ["INV-001", "INV-018"], see="x")
    assert text.nearest("zzz", ["safe"], see="fencepost policies") == "see `fencepost policies`"


def test_what_a_gap_lost_is_told_in_what_its_cause_counts() -> None:
    """Attributes that were dropped are no spans, and where somebody set a clock nothing is missing."""
    assert text.lost("poison_span", 1) == "1 span lost"
    assert text.lost("write_failed", 4966) == "4,966 frames lost"
    assert text.lost("unsequenced", None) == "an unknown number of spans lost"
    assert text.lost("dropped_attributes", 7) == "7 attributes lost"
    assert text.lost("truncated", None) == "an unknown number of attribute values cut"
    assert text.lost("clock_set", None) == "nothing lost"


def test_a_clause_becomes_a_sentence_and_a_name_stays() -> None:
    assert text.told("the run did not come to its end") == "The run did not come to its end."
    assert text.told("mail-worker-1 was at attempt 1 of mail-1") == "mail-worker-1 was at attempt 1 of mail-1."
