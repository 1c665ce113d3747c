"""The environment of a command that is recorded: where its spans go, said in OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fencepost_recorder.attaching import RECEIVER_VARIABLE
from fencepost_recorder.autoload import WAL_VARIABLE

KEEP_VARIABLE = "FENCEPOST_KEEP_ATTRIBUTES"
# A span that waits in an exporter dies with its process; OpenTelemetry's own default is 5,000.
_BATCH_DELAY_MS = "200"
_PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")

Address = tuple[str, int]


def surroundings(
    base: Mapping[str, str],
    wal: Path,
    *,
    http: Address,
    grpc: Address | None = None,
    keep: str | None = None,
) -> dict[str, str]:
    """`base` with what makes its Python programs record themselves into `wal` and all others send their spans here.

    Traces go to `http`, or, for who has chosen that protocol and where there is one, to `grpc`. Somebody who sends
    metrics or logs to a collector goes on doing so; who has chosen none is spared exporters that find nobody.
    """
    made = dict(base)
    made[WAL_VARIABLE] = str(wal.absolute())
    made[RECEIVER_VARIABLE] = " ".join(_joined(one) for one in (http, grpc) if one is not None)
    if keep is not None:
        made[KEEP_VARIABLE] = keep
    protocol = base.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or base.get("OTEL_EXPORTER_OTLP_PROTOCOL") or ""
    if protocol == "grpc" and grpc is not None:
        own = {"ENDPOINT": f"http://{_joined(grpc)}", "PROTOCOL": "grpc"}
        traces = own
    else:
        protocol = protocol if protocol == "http/json" else "http/protobuf"
        own = {"ENDPOINT": f"http://{_joined(http)}", "PROTOCOL": protocol}
        traces = own | {"ENDPOINT": f"http://{_joined(http)}/v1/traces"}
    made |= {f"OTEL_EXPORTER_OTLP_TRACES_{name}": value for name, value in traces.items()}
    # What is meant for somebody else's collector is not ours to see.
    for name in ("HEADERS", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
        made.pop(f"OTEL_EXPORTER_OTLP_TRACES_{name}", None)
    if not base.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        made |= {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in own.items()}
        for signal in ("METRICS", "LOGS"):
            if not base.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
                made.setdefault(f"OTEL_{signal}_EXPORTER", "none")
    made.setdefault("OTEL_BSP_SCHEDULE_DELAY", _BATCH_DELAY_MS)
    if any(base.get(name) for name in _PROXIES):
        for name in ("NO_PROXY", "no_proxy"):
            made[name] = ",".join(filter(None, (base.get(name), http[0])))
    return made


def objections(base: Mapping[str, str]) -> list[str]:
    """What in an environment keeps programs from being recorded, a sentence each."""
    found = []
    if base.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        found.append("OTEL_SDK_DISABLED is set, so programs make no spans: unset it")
    exporters = [name.strip() for name in base.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    if not {"otlp", "fencepost"} & set(exporters):
        found.append("OTEL_TRACES_EXPORTER does not name otlp, so programs that do not record themselves send nothing")
    return found


def _joined(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
