"""The log gives back exactly what was written, or the part of it that is intact: never anything else."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from fencepost_recorder.wal import (
    LOSS_BYTES,
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

HEADER = Header("p-1", pid=7, host="h", started_unix_nano=100, locked=True, begun_unix_nano=100)


def log_of(frames: Sequence[Frame]) -> bytes:
    head = encode_header(HEADER)
    return head + b"".join(encode_frame(f.type, f.sequence, f.time_unix_nano, f.ref, f.payload) for f in frames)


def sample(count: int = 6) -> list[Frame]:
    return [
        Frame(FrameType.START, number, 1000 + number, max(number - 1, 0), bytes([number]) * (number * 7))
        for number in range(count)
    ]


def read(data: bytes) -> tuple[list[Frame], LogReader]:
    reader = LogReader(io.BytesIO(data), len(data))
    return list(reader.frames()), reader


def test_a_log_reads_back_as_it_was_written() -> None:
    frames, reader = read(log_of(sample()))
    assert frames == sample()
    assert (reader.header, reader.ending, reader.unread_bytes) == (HEADER, Ending.CLEAN, 0)
    assert reader.breaks == []


def test_a_log_cut_anywhere_gives_the_whole_frames_before_the_cut() -> None:
    data = log_of(sample())
    for size in range(len(data)):
        frames, reader = read(data[:size])
        assert frames == sample()[: len(frames)]
        whole = size == len(log_of(frames)) and reader.header is not None
        assert (reader.ending is Ending.CLEAN) == whole
        assert reader.header is not None or not frames


def test_a_flipped_bit_anywhere_gives_the_frames_before_it_and_never_a_wrong_one() -> None:
    data = log_of(sample())
    loss_at = loss_offset(encode_header(HEADER))
    for at in range(len(data)):
        for bit in (1, 0x80):
            damaged = bytearray(data)
            damaged[at] ^= bit
            frames, reader = read(bytes(damaged))
            assert frames == sample()[: len(frames)]
            if loss_at <= at < loss_at + LOSS_BYTES:
                assert reader.loss_damaged
            else:
                assert reader.ending is not Ending.CLEAN or len(frames) < len(sample())


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_no_mutation_of_a_log_yields_a_wrong_record_or_an_exception(seed: int, edits: int) -> None:
    source = random.Random(seed)
    data = bytearray(log_of(sample(12)))
    for _ in range(edits):
        at = source.randrange(len(data) + 1)
        match source.randrange(4):
            case 0:
                data[at:at] = source.randbytes(source.randrange(1, 40))
            case 1:
                del data[at : at + source.randrange(1, 40)]
            case 2:
                data[at : at + 8] = source.randbytes(8)
            case _:
                other = source.randrange(len(data) + 1)
                data[at:at] = data[other : other + 60]
    frames, reader = read(bytes(data))
    known = {frame.sequence: frame for frame in sample(12)}
    assert all(known[frame.sequence] == frame for frame in frames)
    assert len({frame.sequence for frame in frames}) == len(frames)
    missing = {number for gap in reader.breaks for number in range(gap.first_seq, gap.last_seq + 1)}
    assert missing.isdisjoint(frame.sequence for frame in frames)


def test_a_frame_missing_from_the_middle_is_a_break_with_its_numbers_and_times() -> None:
    frames, reader = read(log_of([frame for frame in sample() if frame.sequence not in (2, 3)]))
    assert len(frames) == 4
    [broken] = reader.breaks
    assert (broken.first_seq, broken.last_seq, broken.since_unix_nano, broken.until_unix_nano) == (2, 3, 1001, 1004)


def test_a_frame_that_comes_twice_ends_the_reading() -> None:
    frames, reader = read(log_of([*sample(3), sample(3)[2]]))
    assert frames == sample(3)
    assert reader.ending is Ending.CORRUPT


def test_a_frame_that_comes_late_fills_its_place() -> None:
    late = [sample()[number] for number in (0, 2, 3, 1, 4)]
    frames, reader = read(log_of(late))
    assert frames == late
    assert (reader.breaks, reader.ending, reader.next_sequence) == ([], Ending.CLEAN, 5)


def test_a_log_of_another_version_is_not_read() -> None:
    data = bytearray(log_of(sample()))
    data[8] = 3
    frames, reader = read(bytes(data))
    assert not frames
    assert "version 3" in reader.reason


def test_the_loss_record_reads_back() -> None:
    loss = Loss(3, 10, 12, 1, 2, 28)
    head = encode_header(HEADER)
    data = head[: loss_offset(head)] + encode_loss(loss)
    assert read(data)[1].loss == loss


def test_bytes_beyond_the_limit_belong_to_a_writer_that_still_writes() -> None:
    data = log_of(sample())
    reader = LogReader(io.BytesIO(data), len(log_of(sample(3))))
    assert list(reader.frames()) == sample(3)
    assert reader.ending is Ending.CLEAN
