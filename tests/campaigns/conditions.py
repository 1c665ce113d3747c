"""Bad surroundings: a full disk, a read-only folder, a limit of file sizes, a disk that fails at a sync, a set clock.

Each must be reported in one sentence, counted in gaps, and lead to no false verdict afterwards.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from campaigns import incidents, living, oracle, spans, worlds
from campaigns.apart import WentWrong, apart
from campaigns.children import Traced, run
from campaigns.everywhere import memory
from campaigns.incidents import HOUR_NANO, Conditions
from campaigns.ledger import facts
from campaigns.scale import Figure, figure, not_run, scaled
from campaigns.works import WORKS, Work, recovered

from fencepost_recorder import RecorderError, begin, import_otlp, recover, seal
from fencepost_recorder.commitlog import CommitLog
from fencepost_recorder.wal import FrameType
from fencepost_recorder.writer import LogWriter

VERSION = "0.0.campaign"
_SENTENCE = re.compile(r"[^\n]{10,400}[:;,] [^\n]{5,}")


def bad_surroundings() -> Iterator[Figure]:
    """All of them."""
    yield from verdicts_without_space()
    yield from verdicts_under_a_set_clock()
    if worlds.why_not("ext4"):
        yield not_run("full and read-only file systems", worlds.why_not("ext4"))
    else:
        worlds.alone()
        yield from full_disk()
        yield from read_only()
    yield from failing_syncs()


def verdicts_without_space() -> Iterator[Figure]:
    """Files may not grow beyond a limit (EFBIG), and the clock is set besides: is anything said that is false?"""

    def conditions(draw: random.Random, log_bytes: list[int]) -> Conditions:
        limit = draw.randint(600, max(601, *log_bytes))
        return Conditions(limit, _steps(draw) if draw.random() < 0.5 else {})

    yield from _judged("verdicts where files may not grow", conditions, scaled(150, 1))


def verdicts_under_a_set_clock() -> Iterator[Figure]:
    """The clock is set forward or back, by milliseconds or hours, while spans are recorded."""
    yield from _judged(
        "verdicts under a clock that is set", lambda draw, _: Conditions(None, _steps(draw)), scaled(150, 1)
    )


def _steps(draw: random.Random) -> dict[int, int]:
    sizes = (5_000_000, 1_000_000_000, HOUR_NANO)
    return {draw.randrange(200): draw.choice((-1, 1)) * draw.choice(sizes) for _ in range(draw.randint(1, 3))}


def _judged(name: str, conditions: Callable[[random.Random, list[int]], Conditions], rounds: int) -> Iterator[Figure]:
    begun, count, words = time.monotonic(), Counter[str](), []
    for seed in range(rounds):
        scenario, draw = incidents.random_history(seed), random.Random(seed)
        with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
            sound, bad = begin(Path(scratch), "sound"), begin(Path(scratch), "bad")
            told = apart(lambda: incidents.tell(sound, scenario, seed, Conditions()))  # noqa: B023 done at once
            made = conditions(draw, told.log_bytes)
            retold = apart(lambda: incidents.tell(bad, scenario, seed, made))  # noqa: B023
            truth, _ = apart(lambda: incidents.verdicts(sound))  # noqa: B023
            said, counted = apart(lambda: incidents.verdicts(bad))  # noqa: B023
        wrong = incidents.false(truth, said)
        words += [f"seed {seed}: {word}" for word in wrong]
        count["wrong"] += len(wrong)
        count["lost"] += abs(retold.lost - counted)
        count["not_written"] += retold.lost
        count["unknown"] += sum(said[one] == "unknown" != truth[one] for one in truth)
        count["verdicts"] += len(truth)
    yield figure(
        name,
        count["verdicts"],
        "verdicts",
        histories=rounds,
        frames_not_written=count["not_written"],
        made_unknown=count["unknown"],
        lost=count["lost"],
        wrong=count["wrong"],
        words=words[:5],
        seconds=round(time.monotonic() - begun, 1),
    )


def full_disk() -> Iterator[Figure]:
    """A disk fills at every size up to what is needed: while recording, receiving, staging and sealing."""
    rounds, words = 0, []
    draw = random.Random(6)
    sizes = range(3, 60, 1)
    for pages in sizes:
        if draw.random() < scaled(1000) / 1000 or pages in (4, 20):
            rounds += 1
            words += [f"{pages} pages: {word}" for word in _filled(pages)]
    yield figure("a disk that fills at any size", rounds, "sizes", wrong=len(words), words=words[:5])


def _filled(pages: int) -> Iterator[str]:
    """Record, receive and seal on a disk of so many pages; then there is space, and everything must be there."""
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        root = Path(scratch)
        with worlds.tmpfs(root, 4096 * pages) as resize:
            try:
                yield from apart(lambda: _on_a_full_disk(root, resize))
            except WentWrong as error:
                yield str(error)


def _on_a_full_disk(root: Path, resize: Callable[[int], None]) -> list[str]:
    words: list[str] = []
    directory = _said(words, lambda: begin(root, "r"))
    if directory is None:
        return words
    kept: set[int] = set()
    writer = _said(words, lambda: LogWriter(directory / "wal", segment_bytes=8_000))
    for number in range(1, 60) if writer is not None else ():
        scope = writer.append(FrameType.SCOPE, spans.scope(), writer.append(FrameType.RESOURCE, spans.resource("p")))
        if writer.append(FrameType.WHOLE, spans.ended(number), max(scope, 0)) >= 0:
            kept.add(number)
    requests = spans.Requests("client", 4)
    log = _said(words, lambda: CommitLog(directory / "wal", segment_bytes=8_000))
    for first in range(1001, 1101, 4) if log is not None else ():
        if _said(words, lambda: log.append([requests.encoded(first)], 4) or True):  # noqa: B023
            kept.update(range(first, first + 4))
    for producer in (writer, log):
        if producer is not None:
            _said(words, producer.close)
    lost = writer.lost if writer is not None else 0
    _said(words, lambda: seal(directory, tool_version=VERSION))
    resize(64 * 1024 * 1024)
    recording = recover(directory, tool_version=VERSION)
    there = [int(one, 16) for one in recording.spans()["span_id"].to_pylist()]
    counted = sum(gap["lost"] or 0 for gap in recording.gaps().to_pylist() if gap["cause"] == "write_failed")
    words += [f"span {one} is lost" for one in kept - set(there)]
    words += ["a span is doubled"] if len(there) != len(set(there)) else []
    words += [f"{lost} frames were not written, gaps tell of {counted}"] if counted != lost else []
    return words


def _said(words: list[str], step: Callable[[], object]) -> object:
    """Do what may fail; if it does it must say so in one sentence, with a way out."""
    try:
        return step()
    except RecorderError as error:
        if not _SENTENCE.fullmatch(str(error)):
            words.append(f"no sentence: {error!r}")
    except Exception as error:
        words.append(f"{type(error).__name__} reached the user: {error}")
    return None


def read_only() -> Iterator[Figure]:
    """Every public step on a read-only file system answers in one sentence, and changes nothing."""
    words: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        root = Path(scratch)
        with worlds.tmpfs(root, 8 * 1024 * 1024) as resize:
            words += apart(lambda: _on_a_read_only_disk(root, resize))
    yield figure("steps on a read-only file system", 6, "steps", wrong=len(words), words=words[:5])


def _on_a_read_only_disk(root: Path, resize: Callable[..., None]) -> list[str]:
    words: list[str] = []
    directory = begin(root, "r")
    writer = LogWriter(directory / "wal")
    writer.append(FrameType.WHOLE, spans.ended(1))
    writer.close()
    source = root / "spans.jsonl"
    source.write_text("{}")
    resize(8 * 1024 * 1024, read_only=True)
    steps: tuple[Callable[[], object], ...] = (
        lambda: begin(root, "s"),
        lambda: LogWriter(directory / "wal"),
        lambda: CommitLog(directory / "wal"),
        lambda: seal(directory, tool_version=VERSION),
        lambda: recover(directory, tool_version=VERSION),
        lambda: import_otlp([source], root, tool_version=VERSION),
    )
    for number, step in enumerate(steps):
        before = len(words)
        if _said(words, step) is not None and len(words) == before:
            words.append(f"step {number} did what cannot be done")
    resize(8 * 1024 * 1024)
    found = recover(directory, tool_version=VERSION)
    return [*words, *(["the span is lost"] if found.spans().num_rows != 1 else [])]


def failing_syncs() -> Iterator[Figure]:
    """The kernel fails one fsync or fdatasync (EIO, by strace), each in turn: a sentence, and nothing is lost."""
    if shutil.which("strace") is None:
        yield not_run("syncs that fail", "strace is not installed")
        return
    words, struck = [], 0
    for work in WORKS:
        number, step = 1, max(1, round(10 / scaled(10)))
        while (word := _struck(work, number)) is not None:
            struck += 1
            words += [word] if word else []
            number += step
    yield figure("syncs that fail", struck, "syncs", wrong=len(words), words=words[:5])


def _struck(work: Work, number: int) -> str | None:
    """Live a life whose nth sync fails, and recover; what is wrong then. None when there are fewer syncs."""
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        root, ledger, log = (Path(scratch, name) for name in ("root", "ledger", "strace"))
        root.mkdir()
        inject = f"inject=fsync,fdatasync:error=EIO:when={number}"
        strace = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync", "-e", inject]
        done = subprocess.run(
            [*strace, *living.command(work.name, root, ledger)], capture_output=True, text=True, check=False
        )
        if "INJECTED" not in log.read_text():
            return None
        if done.returncode and (done.returncode != living.REFUSED or not _SENTENCE.fullmatch(done.stderr.strip())):
            return f"{work.name}, sync {number}: {done.stderr}"
        known = list(facts(ledger))
        outcome = run(recovered(root), root, Traced())
        finding = oracle.judge(outcome, known, known, gaps=oracle.ALWAYS | oracle.TORN)
        return f"{work.name}, sync {number}: {finding.words()[0]}" if finding else ""
