"""A postmortem's evidence stands or falls: whoever changes it is found out, and what changed is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from analyzer.lab import edit, fallen, fencepost, flip

from fencepost_analyzer.postmortem import page
from fencepost_analyzer.postmortem.folder import INDEX, as_json, sha256


def bless(folder: Path, *paths: str) -> None:
    """What a careful forger does: correct the hashes in evidence.json, and of the page's sections."""
    data = json.loads((folder / INDEX).read_bytes())
    data["files"] |= {path: sha256((folder / path).read_bytes()) for path in paths}
    found = page.extract((folder / "postmortem.md").read_text("utf-8"))
    data["sections"] = {name: sha256(section.encode()) for name, section in found.items()}
    (folder / INDEX).write_bytes(as_json(data))


Tamper = Callable[[Path], Any]
TAMPERED: dict[str, tuple[Tamper, str]] = {
    "an edited verdict": (
        lambda folder: edit(folder / "evidence/verdicts.json", '"verdict": "violated"', '"verdict": "holds"'),
        "file evidence/verdicts.json",
    ),
    "an edited replay": (
        lambda folder: edit(folder / "evidence/replay.json", '"heals": true', '"heals": false'),
        "file evidence/replay.json",
    ),
    "an edited query": (
        lambda folder: edit(folder / "evidence/queries/INV-001.sql", "applied > 1", "applied > 9"),
        "query INV-001",
    ),
    "an edited answer": (
        lambda folder: edit(folder / "evidence/queries/INV-007.json", "mail-2", "mail-3"),
        "query INV-007",
    ),
    "a flipped byte of the recording": (
        lambda folder: flip(folder / "evidence/recorded/incident/spans/part-00000.parquet"),
        "recording",
    ),
    "an edited timeline": (
        lambda folder: edit(folder / "evidence/timeline.txt", "STOPPED", "worked"),
        "derived evidence/timeline.txt",
    ),
    "an edited section": (
        lambda folder: edit(folder / "postmortem.md", "| **violated** | 2 |", "| holds |  |"),
        "section verdicts",
    ),
    "a section without markers": (
        lambda folder: edit(folder / "postmortem.md", "<!-- fencepost:end verdicts -->", ""),
        "postmortem.md",
    ),
    "a missing file": (lambda folder: (folder / "evidence/events.csv").unlink(), "file evidence/events.csv"),
    "a file that does not belong": (
        lambda folder: (folder / "evidence/extra.txt").write_text("?"),
        "file evidence/extra.txt",
    ),
    "a link instead of a file": (
        lambda folder: (
            (folder / "evidence/events.csv").rename(folder / "elsewhere"),
            (folder / "evidence/events.csv").symlink_to(folder / "elsewhere"),
        ),
        "file evidence/events.csv",
    ),
    "a link to a folder": (
        lambda folder: (folder / "evidence/more").symlink_to("/etc"),
        "file evidence/more",
    ),
    "a missing page": (lambda folder: (folder / "postmortem.md").unlink(), "postmortem.md"),
}


@pytest.mark.parametrize("what", TAMPERED)
@pytest.mark.usefixtures("derived_once")
def test_whatever_is_changed_is_named(what: str, copy: Path) -> None:
    """A changed, missing or added piece of evidence does not stand, and the check that fails says which."""
    change, name = TAMPERED[what]
    change(copy)
    assert name in fallen(copy)


FORGED: dict[str, tuple[Tamper, str]] = {
    "verdicts.json": (
        lambda folder: (TAMPERED["an edited verdict"][0](folder), bless(folder, "evidence/verdicts.json")),
        "verdict INV-001",
    ),
    "replay.json": (
        lambda folder: (
            edit(folder / "evidence/replay.json", load_digest(folder), "0" * 64),
            bless(folder, "evidence/replay.json"),
        ),
        "replay verify",
    ),
    "a query": (
        lambda folder: (TAMPERED["an edited query"][0](folder), bless(folder, "evidence/queries/INV-001.sql")),
        "query INV-001",
    ),
    "an answer": (
        lambda folder: (TAMPERED["an edited answer"][0](folder), bless(folder, "evidence/queries/INV-007.json")),
        "query INV-007",
    ),
    "events.csv": (
        lambda folder: (
            edit(folder / "evidence/events.csv", "pay-2", "pay-9"),
            bless(folder, "evidence/events.csv"),
        ),
        "derived evidence/events.csv",
    ),
    "a section": (lambda folder: (TAMPERED["an edited section"][0](folder), bless(folder)), "section verdicts"),
}


def load_digest(folder: Path) -> str:
    digest: str = json.loads((folder / "evidence/replay.json").read_bytes())["replays"][0]["digest"]
    return digest


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.usefixtures("derived_once")
def test_corrected_hashes_do_not_save_a_forgery(what: str, copy: Path) -> None:
    """Who changes evidence and its hashes too is found out, for everything is derived again from the recording."""
    change, name = FORGED[what]
    change(copy)
    assert name in fallen(copy)


@pytest.mark.usefixtures("derived_once")
def test_another_recording_in_its_place_is_found(copy: Path, shelf: Path) -> None:
    """A sound recording that is not the one of the incident does not stand in for it."""
    target = copy / "evidence/recorded/incident"
    shutil.rmtree(target)
    shutil.copytree(shelf / "clean", target)
    assert "recording" in fallen(copy)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "evidence/../postmortem.md", "postmortem.md", "evidence/.hidden", ""]
)
def test_an_index_cannot_point_outside(path: str, copy: Path) -> None:
    """A path that leaves the evidence makes the folder unusable, before anything is read."""
    data = json.loads((copy / INDEX).read_bytes())
    data["files"][path] = "0" * 64
    (copy / INDEX).write_bytes(as_json(data))
    done = fencepost("postmortem", "verify", copy)
    assert (done.code, done.out) == (2, "") and "evidence.json" in done.err


@pytest.mark.parametrize(
    "field",
    [{"replays": ["x"]}, {"replays": [{"mode": "explore"}]}, {"attachments": [3]}, {"queries": ["../x"]}, {"x": 1}],
)
def test_an_index_of_another_shape_makes_the_folder_unusable(field: dict[str, Any], copy: Path) -> None:
    """An evidence.json that says what fencepost never writes is refused, not worked with."""
    (copy / INDEX).write_bytes(as_json({**json.loads((copy / INDEX).read_bytes()), **field}))
    done = fencepost("postmortem", "verify", copy)
    assert (done.code, done.out) == (2, "") and "evidence.json" in done.err


@pytest.mark.usefixtures("derived_once")
def test_another_version_may_word_it_otherwise(copy: Path) -> None:
    """Evidence of another version stands by what it says, not by its words; and is told apart."""
    edit(copy / "evidence/verdicts.json", "was applied 2 times", "has been applied twice")
    edit(copy / "postmortem.md", "was applied 2 times", "has been applied twice")
    edit(copy / "evidence/timeline.txt", "STOPPED", "HALTED")
    edit(copy / INDEX, '"tool_version": "', '"tool_version": "0.0.')
    bless(copy, "evidence/verdicts.json", "evidence/timeline.txt")
    done = fencepost("postmortem", "verify", copy)
    assert (done.code, "written by fencepost 0.0." in done.out) == (0, True)
    edit(copy / "evidence/verdicts.json", '"violations": 3', '"violations": 4')
    bless(copy, "evidence/verdicts.json")
    assert fallen(copy) == ["verdict INV-001"]


@pytest.mark.usefixtures("derived_once")
def test_a_replay_that_no_policy_allows_does_not_stand(copy: Path) -> None:
    """A specification that was changed to nonsense is a check that fails, not a crash."""
    data = json.loads((copy / INDEX).read_bytes())
    data["replays"][1]["policy"]["lease_ms"] = "soon"
    (copy / INDEX).write_bytes(as_json(data))
    assert "evidence" in fallen(copy)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"format": "other"}', b"[" * 100_000])
def test_an_unreadable_index_makes_the_folder_unusable(content: bytes, copy: Path) -> None:
    """Without a readable evidence.json there is nothing to verify: code 2 and one sentence."""
    (copy / INDEX).write_bytes(content)
    done = fencepost("postmortem", "verify", copy)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
