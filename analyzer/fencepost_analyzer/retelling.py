"""What a recording comes to as a scenario: the reading that explains it, and in words all that the reading rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fencepost_analyzer import text
from fencepost_analyzer.case import Case
from fencepost_analyzer.extent import cut_off, under_way
from fencepost_analyzer.inference import Inference
from fencepost_analyzer.replay import MAX_READINGS, explains
from fencepost_analyzer.scenario_file import dump
from fencepost_analyzer.scenario_from import Incident
from fencepost_runtime.scenario import Fault, Scenario

# Spans that one inference names, and other readings that are told in full.
MAX_SPANS, MAX_TOLD = 6, 8


@dataclass(frozen=True, slots=True)
class Retelling:
    """`found`: the likeliest reading of a recording that gives its history when it is followed; the likeliest of all
    where none does (`explained` is false then). `others`: the further readings that would explain it as well. `cut_off`
    and `under_way`: what the recording cannot tell, as clauses."""

    recording: str
    found: Incident
    explained: bool
    others: tuple[Incident, ...]
    cut_off: tuple[str, ...]
    under_way: tuple[str, ...]

    @property
    def scenario(self) -> Scenario:
        return self.found.scenario

    @property
    def seed(self) -> int:
        return self.found.seed

    def to_toml(self) -> str:
        return dump(self.scenario, seed=self.seed, comments=list(comments(self)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "recording": self.recording,
            "scenario": self.scenario.to_dict(),
            "seed": self.seed,
            "explained": self.explained,
            "faults": [
                {"sentence": one.sentence, "span_ids": list(one.span_ids), "open": open_question(one.fault)}
                for one in self.found.inferences
            ],
            "other_readings": [list(differing(self.found, other)) for other in self.others],
            "unplaced": list(self.found.unplaced),
            "cut_off": list(self.cut_off),
            "under_way": list(self.under_way),
        }


def retell(case: Case) -> Retelling:
    """The scenario that the recording comes to. Raises NotReplayable."""
    readings = list(islice(case.readings(), MAX_READINGS))
    fitting = [found for found in readings if explains(case, found)]
    found, *others = fitting or readings[:1]
    different = [other for other in others if other.scenario.faults != found.scenario.faults]
    return Retelling(
        case.recording.id,
        found,
        bool(fitting),
        tuple(different),
        cut_off(found, case.gaps),
        under_way(found),
    )


def comments(told: Retelling) -> Iterator[str]:
    """The paragraphs above the scenario: what was inferred and from which spans, and what nobody knows."""
    yield f"What recording {told.recording} comes to. Run it with `fencepost run`, edit it, keep it."
    if told.explained:
        yield "In the recorded order the simulator comes to the recorded history with it, event by event."
    else:
        yield (
            "NOT EXPLAINED: followed in the recorded order it does not come to the recorded history; "
            "`fencepost replay` shows where they part."
        )
    befell = "What befell the actors, in the order of the [[faults]], and the spans that say so:"
    otherwise = "It can be read otherwise as well; then instead of the faults named first there were:"
    yield from _part(befell, _faults(told))
    yield from _part(otherwise, _others(told))
    yield from _part("Bound to no step, so that a run of this file lacks it:", _sentences(told.found.unplaced))
    yield from _part("The recording is cut off; what it does not tell:", _sentences(told.cut_off))
    yield from _part("Under way where the evidence ends:", _sentences(told.under_way))


_BY_POSITION = "whether the step was applied is told only by whether a position is missing in its place"
_OPEN = {
    "kill": "it told nothing more, so it died at any moment up to the next step that it would have told",
    "pause": "it stood at any moment up to its next step",
    "slow": "the time may have gone into waiting for the database as well as into work",
    "lost_request": _BY_POSITION,
    "lost_reply": _BY_POSITION,
}


def open_question(fault: Fault) -> str:
    """What the spans leave open about a fault that they show; nothing of one that the database refused."""
    if fault.kind == "kill" and fault.at.when in ("begun", "committed"):
        return _BY_POSITION
    guess = "; that it went on because of what others did is a guess" if fault.until is not None else ""
    return _OPEN.get(fault.kind, "") + guess


def differing(found: Incident, other: Incident) -> Iterator[str]:
    """How another reading differs, fault by fault: its sentence, and the one that it takes the place of."""
    known = {one.fault for one in found.inferences}
    for one in other.inferences:
        if one.fault not in known:
            yield one.sentence


def _faults(told: Retelling) -> Iterator[str]:
    for number, one in enumerate(told.found.inferences, start=1):
        question = open_question(one.fault)
        yield f"{number}. {one.sentence} {_spans(one)}" + (f" Open: {question}." if question else "")


def _spans(one: Inference) -> str:
    more = ", …" if len(one.span_ids) > MAX_SPANS else ""
    return f"[{', '.join(one.span_ids[:MAX_SPANS])}{more}]"


def _others(told: Retelling) -> Iterator[str]:
    for number, other in enumerate(told.others[:MAX_TOLD], start=1):
        yield f"{number}. {' '.join(differing(told.found, other)) or 'Fewer faults than these.'}"
    if len(told.others) > MAX_TOLD:
        yield f"… and {len(told.others) - MAX_TOLD} more."


def _sentences(clauses: Iterable[str]) -> Iterator[str]:
    for clause in clauses:
        yield f"- {text.told(clause)}"


def _part(title: str, entries: Iterable[str]) -> Sequence[str]:
    """A heading and its entries after an empty line; nothing where there is no entry."""
    found = list(entries)
    return ["", title, *found] if found else []
