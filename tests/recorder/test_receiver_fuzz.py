"""Hostile input costs a clear answer and no more: whatever is sent, the receiver lives, stays small, and loses nothing.

`make campaign` sends 10^5 requests, the normal run a sample. FENCEPOST_CAMPAIGN_SCALE scales the campaign.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from recorder.fuzzing import EXPORTS, Crowd, Fuzzer
from recorder.hostile import BODIES, MIB, Hostile, Server, serving
from recorder.receiving import JSON, PROTOBUF, Client, body_of, gaps, json_body, request_of

from fencepost_recorder import Recording, begin, seal
from fencepost_recorder.receiver import Limits

SCALE = float(os.environ.get("FENCEPOST_CAMPAIGN_SCALE", "1.0"))
LIMIT = 16 * MIB
SAMPLE, CAMPAIGN = 1_000, 100_000
SENDERS = 4
# None of these costs a processor more than a moment; the campaign sends all.
QUICK = ("empty spans", "spans of empty attributes", "large spans", "JSON that is deep", "a bomb in parts")


@pytest.fixture
def directory(recordings: Path) -> Path:
    return begin(recordings, "fuzzed")


def told(figure: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"figure": figure, **values}) + "\n")


def test_a_body_made_to_be_costly_costs_less_than_twice_the_limit(directory: Path) -> None:
    """Of memory, in one request; whatever the answer is, the next request is served."""
    with serving(directory / "wal") as server:
        warm(server)
        for body in BODIES:
            if body.name in QUICK:
                assert growth(server, body) < 2 * LIMIT, body.name
        assert server.end() == ""


@pytest.mark.campaign
def test_every_body_made_to_be_costly_costs_less_than_twice_the_limit(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, over HTTP and, where it is protobuf, over gRPC."""
    with serving(directory / "wal") as server:
        warm(server)
        found = {body.name: growth(server, body) for body in BODIES}
        assert server.end() == ""
    worst = max(found, key=lambda name: found[name])
    with capsys.disabled():
        told("receiver_hostile_memory", unit="MiB", peak=round(found[worst] / MIB, 1), limit=LIMIT // MIB, body=worst)
    assert found[worst] < 2 * LIMIT


@pytest.mark.campaign
def test_a_crowd_of_costly_clients_costs_less_than_twice_the_limit(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """24 over HTTP with all that one request may hold and 24 over gRPC, at once: what is too much is put off."""
    limits = Limits()
    limit = limits.in_flight_bytes + limits.grpc_threads * limits.grpc_message_bytes
    costly = [body for body in BODIES if body.name in {"large spans", "spans of empty attributes", "a bomb"}]
    with serving(directory / "wal") as server:
        warm(server)
        before = server.resident()
        server.forget_peak()
        crowd = Crowd(server, [(body, body.make(LIMIT)) for body in costly])
        crowd.run(24)
        grown = server.peak() - before
        assert server.end() == ""
    assert crowd.failures == []
    with capsys.disabled():
        told("receiver_crowd_memory", unit="MiB", peak=round(grown / MIB, 1), limit=limit // MIB)
    assert grown < 2 * limit


def warm(server: Server) -> None:
    """Have it load what it loads late, so that only requests are measured."""
    request = request_of(range(3))
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = b"x"
    with Client(server.http) as client, channel_to(server) as channel:
        for _ in range(8):
            assert client.post(request.SerializeToString()).status == 200
            assert client.post(json_body(range(3)), kind=JSON).status == 200
            channel.unary_unary(EXPORTS[0])(body_of(range(3)), timeout=20)


def channel_to(server: Server) -> grpc.Channel:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(f"127.0.0.1:{server.grpc[1]}", options=options)


def growth(server: Server, body: Hostile) -> int:
    """Bytes by which the receiver's memory grew at most, over what it was before."""
    data = body.make(LIMIT)
    before = server.resident()
    server.forget_peak()
    headers = {"Content_Encoding": body.encoding} if body.encoding else {}
    with Client(server.http, seconds=120) as client:
        assert client.post(data, kind=body.kind, **headers).status in (200, 400, 413), body.name
    if body.kind == PROTOBUF and body.encoding != "deflate":
        with channel_to(server) as channel:
            try:
                channel.unary_unary(EXPORTS[0])(data, timeout=120)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, body.name
    with Client(server.http) as client:
        assert client.post(body_of(range(2))).status == 200, body.name
    return server.peak() - before


def test_a_sample_of_fuzzed_requests_breaks_nothing(directory: Path) -> None:
    """A thousand of what the campaign sends."""
    fuzz(directory, SAMPLE, seed=1)


@pytest.mark.campaign
def test_fuzzed_requests_break_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """10^5: no crash, memory below twice the limit, good requests answered, nothing that was acknowledged lost."""
    seed = random.SystemRandom().randrange(2**32)
    started = time.monotonic()
    result = fuzz(directory, int(CAMPAIGN * SCALE), seed)
    with capsys.disabled():
        told(
            "receiver_fuzz",
            unit="requests",
            requests=int(CAMPAIGN * SCALE),
            seed=seed,
            seconds=round(time.monotonic() - started, 1),
            **result,
        )


def fuzz(directory: Path, requests: int, seed: int) -> dict[str, Any]:
    """Send so many fuzzed requests by several senders, and hold every promise afterwards."""
    with serving(directory / "wal", request_seconds=5.0, in_flight_bytes=LIMIT) as server:
        warm(server)
        already = server.counts()[1]
        before = server.resident()
        server.forget_peak()
        fuzzers = [Fuzzer(server, random.Random(f"{seed}/{which}"), which) for which in range(SENDERS)]
        threads = [threading.Thread(target=one.run, args=(requests // SENDERS,)) for one in fuzzers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = server.peak() - before
        _, spans, _, _, refused = server.counts()
        assert server.end() == ""
    failures = [failure for one in fuzzers for failure in one.failures]
    assert failures == [], f"seed {seed}"
    assert "defect of the receiver" not in refused, f"seed {seed}"
    assert grown < 2 * LIMIT, f"seed {seed}"
    recording = seal(directory, tool_version="0.0.test")
    # Whatever was acknowledged could be read again, span by span, and was either kept or the same as one before it.
    assert recording.manifest.spans + recording.manifest.duplicates == spans, f"seed {seed}"
    assert unread(recording) == [], f"seed {seed}"
    good = sorted(number for one in fuzzers for number in one.good)
    assert kept(recording, "good") == good, f"seed {seed}"
    statuses: Counter[str] = sum((one.statuses for one in fuzzers), Counter())
    return {
        "answers": dict(statuses.most_common()),
        "acknowledged_spans": spans - already,
        "good_requests": len(good),
        "memory_mib": round(grown / MIB, 1),
        "limit_mib": LIMIT // MIB,
        "crashes": 0,
        "lost": 0,
    }


def kept(recording: Recording, service: str) -> list[int]:
    """The numbers of a service's spans, sorted."""
    columns = [recording.spans()[name].to_pylist() for name in ("service_name", "span_attributes")]
    return sorted(json.loads(text)["number"] for name, text in zip(*columns, strict=True) if name == service)


def unread(recording: Recording) -> list[str]:
    """What sealing could not read, though it was acknowledged."""
    details = [gap["detail"] for gap in gaps(recording, "poison_span")]
    told = "spans that could not be read were rejected"
    return [detail for detail in details if not detail.removeprefix("several: ").startswith(told)]
