"""What a unit found, as JSON and back: the account of its segments, its gaps, its producers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from fencepost_recorder import named
from fencepost_recorder.accounts import SegmentAccount
from fencepost_recorder.conversion import Found
from fencepost_recorder.errors import RecordingDamaged
from fencepost_recorder.gaps import Gap
from fencepost_recorder.wal import Break, Ending, Header, Loss


def sealed(values: dict[str, Any]) -> bytes:
    """The bytes of a sidecar that holds these values, with their hash."""
    return json.dumps({"sha256": _hash(values), "values": values}).encode()


def unsealed(data: bytes, name: str) -> dict[str, Any]:
    """The values in the bytes of a sidecar; raises RecordingDamaged when they are not what was written."""
    try:
        document = json.loads(data)
        values: dict[str, Any] = document["values"]
        if document["sha256"] == _hash(values):
            return values
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise RecordingDamaged(f"{name} is damaged: its hash does not match, restore it from a copy")


def found_to_json(found: Found) -> dict[str, Any]:
    """All but the halves, which have a file of their own."""
    return {
        "accounts": [_account_to_json(one) for one in found.accounts],
        "gaps": [asdict(gap) for gap in found.gaps],
        "told": [[*key, spans] for key, spans in found.told.items()],
        "sampled": [asdict(gap) for gap in found.sampled.values()],
        "around": [[*key, asdict(gap)] for key, gap in found.around.items()],
    }


def found_from_json(values: dict[str, Any]) -> Found:
    """What `found_to_json` was given, but for the halves. Raises KeyError, TypeError or ValueError."""
    found = Found(accounts=[_account_from_json(one) for one in values["accounts"]])
    for gap in values["gaps"]:
        found.gaps.add(Gap(**gap))
    found.told = {(producer, kind): spans for producer, kind, spans in values["told"]}
    found.sampled = {gap["producer"] or named.OTHERS: Gap(**gap) for gap in values["sampled"]}
    found.around = {(producer, digest): Gap(**gap) for producer, digest, gap in values["around"]}
    return found


def merge(into: Found, other: Found) -> None:
    """Add what another unit found, but for the halves."""
    into.accounts += other.accounts
    for gap in other.gaps:
        into.gaps.add(gap)
    for (producer, kind), spans in other.told.items():
        named.count(into.told, producer, kind, spans)
    for name, gap in other.sampled.items():
        named.note(into.sampled, name, named.OTHERS, gap)
    for key, gap in other.around.items():
        named.note(into.around, key, (named.OTHERS, ""), gap)


def _account_to_json(account: SegmentAccount) -> dict[str, Any]:
    return {**asdict(account), "ending": account.ending.value}


def _account_from_json(values: dict[str, Any]) -> SegmentAccount:
    header, loss = values["header"], values["loss"]
    if header is not None and header["kept"] is not None:
        header["kept"] = tuple(header["kept"])
    return SegmentAccount(
        **{
            **values,
            "header": None if header is None else Header(**header),
            "ending": Ending(values["ending"]),
            "breaks": [Break(**one) for one in values["breaks"]],
            "noted": [(first, last) for first, last in values["noted"]],
            "loss": None if loss is None else Loss(**loss),
        }
    )


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
