"""Bytes that are not what was written: a log gives none of its frames wrong, a recording none of its rows at all."""

from __future__ import annotations

import io
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaigns import spans
from campaigns.everywhere import memory
from campaigns.ledger import Ledger
from campaigns.scale import Figure, figure, scaled
from campaigns.works import ID, SEAL, VERSION

from fencepost_recorder import RecordingDamaged, open_recording, seal
from fencepost_recorder.wal import (
    Ending,
    Frame,
    FrameType,
    Header,
    LogReader,
    Loss,
    encode_frame,
    encode_header,
    encode_loss,
    loss_offset,
)

SECTOR = 512
_START = 1_790_000_200_000_000_000


def small_log() -> bytes:
    """A log with a frame of every type, one loss, and numbers that jump."""
    head = encode_header(Header("p", pid=7, host="h", started_unix_nano=_START, locked=True))
    at = loss_offset(head)
    loss = Loss(2, 4, 5, _START, _START + 9, 28)
    payloads: list[tuple[FrameType, bytes]] = [
        (FrameType.RESOURCE, spans.resource("p")),
        (FrameType.SCOPE, spans.scope()),
        (FrameType.START, spans.started(1)),
        (FrameType.END, spans.ended(1)),
        (FrameType.WHOLE, spans.ended(2)),
        (FrameType.NOTE, b'{"cause": "write_failed", "first_seq": 4, "last_seq": 5, "lost": 2}'),
        (FrameType.REQUEST, spans.Requests("client", 2).encoded(3)),
        (FrameType.START, spans.started(5)),
        (FrameType.NEXT, b"{}"),
    ]
    numbers = (0, 1, 2, 3, 6, 7, 8, 9, 10)
    frames = [
        encode_frame(kind, number, _START + number, 1 if kind in (3, 4, 5) else 0, payload)
        for number, (kind, payload) in zip(numbers, payloads, strict=True)
    ]
    return head[:at] + encode_loss(loss) + b"".join(frames)


def read(data: bytes) -> tuple[list[Frame], LogReader]:
    """The frames of a log's bytes, and the reader that has read them."""
    reader = LogReader(io.BytesIO(data), len(data))
    return list(reader.frames()), reader


def _verdict(frames: list[Frame], reader: LogReader, whole: list[Frame]) -> str:
    """What is wrong with what a damaged log gave; empty when it is a beginning of the whole, and says that it ends."""
    numbers = [frame.sequence for frame in frames]
    if [frame for frame in whole if frame.sequence in numbers] != frames:
        return "a frame that was never written"
    missing = {number for one in reader.breaks for number in range(one.first_seq, one.last_seq + 1)}
    known = [frame for frame in whole if frame.sequence not in missing]
    said = reader.ending is not Ending.CLEAN or reader.loss_damaged or reader.header is None
    return "" if frames == (known[: len(frames)] if said else known) else "an end that is none"


def bytes_of_a_log() -> Iterator[Figure]:
    """Every byte of a log in each of its 255 other values, or a share of them."""
    data, begun = small_log(), time.monotonic()
    whole, sound = read(data)
    assert sound.ending is Ending.CLEAN
    assert len(whole) == 9
    draw = random.Random(1)
    tries = scaled(max(1_000_000, 255 * len(data)), 2_000)
    share = min(1.0, tries / (255 * len(data)))
    wrong: Counter[str] = Counter()
    mutated = unnoticed = 0
    for at in range(len(data)):
        for other in range(256):
            if other == data[at] or draw.random() >= share:
                continue
            mutated += 1
            frames, reader = read(data[:at] + bytes([other]) + data[at + 1 :])
            why = _verdict(frames, reader, whole)
            wrong[why] += 1
            unnoticed += frames == whole and reader.ending is Ending.CLEAN and not reader.loss_damaged
    del wrong[""]
    yield figure(
        "a log with one byte changed",
        mutated,
        "bytes",
        wrong=sum(wrong.values()),
        missed=unnoticed,
        which=dict(wrong),
        seconds=round(time.monotonic() - begun, 1),
    )


def sectors_of_a_log() -> Iterator[Figure]:
    """Many bytes at once: bursts, sectors of zeros or of noise, cuts, bytes put in or taken out, frames swapped."""
    data, begun, draw = small_log(), time.monotonic(), random.Random(2)
    whole, _ = read(data)
    wrong: Counter[str] = Counter()
    mutated, tries = 0, scaled(200_000, 500)
    for _ in range(tries):
        mutation = draw.choice(MUTATIONS)
        damaged, changed = mutation(data, draw)
        mutated += changed
        frames, reader = read(damaged)
        why = _verdict(frames, reader, whole) if damaged != data else ""
        # A log that was cut between two frames is one whose producer was killed there.
        if why and not data.startswith(damaged):
            wrong[f"{mutation.__name__}: {why}"] += 1
    yield figure(
        "a log with many bytes changed",
        mutated,
        "bytes",
        logs=tries,
        wrong=sum(wrong.values()),
        which=dict(wrong),
        seconds=round(time.monotonic() - begun, 1),
    )


Damaged = tuple[bytes, int]


def burst(data: bytes, draw: random.Random) -> Damaged:
    """Some bytes in a row are noise."""
    at, size = draw.randrange(len(data)), draw.randint(2, 64)
    return data[:at] + draw.randbytes(size) + data[at + size :], size


def scattered(data: bytes, draw: random.Random) -> Damaged:
    """Some bits are flipped, anywhere."""
    changed, size = bytearray(data), draw.randint(2, 40)
    for _ in range(size):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed), size


def zeroed(data: bytes, draw: random.Random) -> Damaged:
    """A sector never reached the disk."""
    at = draw.randrange(0, len(data), SECTOR)
    size = len(data[at : at + SECTOR])
    return data[:at] + bytes(size) + data[at + size :], size


def cut(data: bytes, draw: random.Random) -> Damaged:
    """The end is missing, or is zeros."""
    at = draw.randrange(len(data))
    return data[:at] + bytes(draw.choice((0, len(data) - at))), len(data) - at


def put_in(data: bytes, draw: random.Random) -> Damaged:
    """Bytes too many."""
    at, size = draw.randrange(len(data)), draw.randint(1, 9)
    return data[:at] + draw.randbytes(size) + data[at:], size


def taken_out(data: bytes, draw: random.Random) -> Damaged:
    """Bytes too few."""
    at, size = draw.randrange(len(data)), draw.randint(1, 9)
    return data[:at] + data[at + size :], size


def moved(data: bytes, draw: random.Random) -> Damaged:
    """A sector lies where another should."""
    one, other = (draw.randrange(0, max(len(data) - SECTOR, 1), SECTOR) for _ in range(2))
    return data[:one] + data[other : other + SECTOR] + data[one + SECTOR :], SECTOR


MUTATIONS: tuple[Callable[[bytes, random.Random], Damaged], ...] = (
    *(burst, scattered, zeroed, cut, put_in, taken_out, moved),
)


def sealed_from_damage() -> Iterator[Figure]:
    """Logs in segments, one file of which is damaged, sealed: no row is wrong, and a gap covers all that is missing."""
    draw, begun, tries = random.Random(3), time.monotonic(), scaled(5_000, 20)
    wrong: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    mutated = 0
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        source = Path(scratch, "source")
        source.mkdir()
        SEAL.prepare(source, Ledger(Path(scratch, "ledger")))
        truth = _truth(source / ID / "wal")
        for _ in range(tries):
            copy = Path(scratch, "copy")
            shutil.copytree(source, copy)
            what, changed = _damage(copy / ID / "wal", draw)
            mutated += changed
            for kind, words in _judged(copy / ID, truth):
                (wrong if kind == "wrong" else lost)[f"{what}: {words}"] += 1
            shutil.rmtree(copy)
    yield figure(
        "a log that was damaged, sealed",
        mutated,
        "bytes",
        logs=tries,
        lost=sum(lost.values()),
        wrong=sum(wrong.values()),
        which=dict((lost + wrong).most_common(5)),
        seconds=round(time.monotonic() - begun, 1),
    )


def _truth(wal: Path) -> dict[str, dict[int, int]]:
    """Of each producer, which of its frames started or ended which span: number of the frame to number of the span."""
    found: dict[str, dict[int, int]] = {}
    for path in sorted(wal.iterdir()):
        frames, reader = read(path.read_bytes())
        assert reader.header is not None
        known = found.setdefault(reader.header.producer, {})
        for frame in frames:
            if frame.type in (FrameType.START, FrameType.END):
                known[frame.sequence] = int.from_bytes(frame.payload[20:28], "big")
    return found


def _damage(wal: Path, draw: random.Random) -> tuple[str, int]:
    """Damage one file of a log; in words, and how many bytes that are."""
    path = draw.choice(sorted(wal.iterdir()))
    data = path.read_bytes()
    if draw.random() < 0.1:
        path.unlink()
        return "a segment is missing", len(data)
    mutation = draw.choice(MUTATIONS)
    damaged, changed = mutation(data, draw)
    path.write_bytes(damaged)
    return mutation.__name__, changed


def _judged(directory: Path, truth: dict[str, dict[int, int]]) -> Iterator[tuple[str, str]]:
    recording = seal(directory, tool_version=VERSION)
    rows, gaps = recording.spans().to_pylist(), recording.gaps().to_pylist()
    there: set[tuple[str, int]] = set()
    for row in rows:
        # Whose span it was may be lost with the frame that said so; what it is may not.
        why = spans.wrong({**row, "service_name": "campaign", "scope_name": spans.SCOPE})
        number = int(row["span_id"], 16)
        for sequence in (row["producer_seq"], row["producer_end_seq"]):
            if sequence is not None:
                there.add((row["producer"], sequence))
                if truth.get(row["producer"], {}).get(sequence) != number:
                    why = "a number that another span has"
        if why:
            yield "wrong", why
    for producer, frames in truth.items():
        for sequence, number in frames.items():
            if (producer, sequence) in there or any(_covers(gap, producer, sequence) for gap in gaps):
                continue
            if not _told_by_another(rows, number):
                yield "lost", "a frame that no gap covers"


def _covers(gap: dict[str, Any], producer: str, sequence: int) -> bool:
    first, last = gap["first_seq"], gap["last_seq"]
    inside = (first is None or first <= sequence) and (last is None or sequence <= last)
    return gap["producer"] in (None, producer) and inside


def _told_by_another(rows: list[dict[str, Any]], number: int) -> bool:
    """Two processes told the same span: it is kept once, under the numbers of one of them."""
    return number > 100 and any(int(row["span_id"], 16) == number for row in rows)


def bytes_of_a_recording() -> Iterator[Figure]:
    """Every bit of every file of a sealed recording, or a share of them: the recording is refused, the file named."""
    draw, begun = random.Random(4), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        root = Path(scratch)
        SEAL.prepare(root, Ledger(root / "ledger"))
        SEAL.run(root, Ledger(root / "ledger"))
        directory = root / ID
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        share = min(1.0, scaled(1_000_000, 300) / sum(8 * path.stat().st_size for path in files))
        for path in files:
            yield from _flipped(directory, path, share, draw)
    yield figure("a sealed recording with one bit flipped", round(time.monotonic() - begun, 1), "seconds")


def _flipped(directory: Path, path: Path, share: float, draw: random.Random) -> Iterator[Figure]:
    data = path.read_bytes()
    flips: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    with path.open("r+b", buffering=0) as file:
        for at in range(len(data)):
            for bit in range(8):
                if draw.random() >= share:
                    continue
                file.seek(at)
                file.write(bytes([data[at] ^ 1 << bit]))
                place = _class(path.name, data, at)
                flips[place] += 1
                missed[place] += not _is_refused(directory, path.name)
        file.seek(0)
        file.write(data)
    open_recording(directory)
    for place, count in sorted(flips.items()):
        yield figure(f"bits flipped in {path.name}, {place}", count, "bits", missed=missed[place])


def _class(name: str, data: bytes, at: int) -> str:
    """Which part of a file a byte belongs to."""
    if not name.endswith(".parquet"):
        return "any"
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if at < 4 or at >= len(data) - 4:
        return "magic"
    if at >= len(data) - 8:
        return "size of the footer"
    return "footer" if at >= footer else "pages"


def _is_refused(directory: Path, name: str) -> bool:
    try:
        open_recording(directory)
    except RecordingDamaged as error:
        return name in str(error)
    return False


def mutated() -> Iterator[Figure]:
    """All of them."""
    yield from bytes_of_a_log()
    yield from sectors_of_a_log()
    yield from sealed_from_damage()
    yield from bytes_of_a_recording()
