"""`record`: a recording of a command and all of its processes, or of whatever is sent here."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fencepost_analyzer import render, text
from fencepost_analyzer.cli.failures import USAGE, UsageError, explain
from fencepost_analyzer.cli.options import AsJson, Recordings, Session, session
from fencepost_analyzer.cli.strict import StrictCommand
from fencepost_analyzer.render import bold, dim

if TYPE_CHECKING:
    from fencepost_recorder import Recording
    from fencepost_recorder.receiver import Counts, Receiver
    from fencepost_recorder.session import Ran

HTTP_PORT, GRPC_PORT = 4318, 4317
MAX_TOKEN_BYTES = 4096
_SHOWN = 8


def register(app: typer.Typer) -> None:
    settings = {"allow_interspersed_args": False}
    about = "Record a command and its children, or receive OTLP."
    app.command("record", cls=_RecordCommand, short_help=about, context_settings=settings)(record)


class _RecordCommand(StrictCommand):
    """A command's options are its own; but --listen runs nothing, so all options are ours, also after the place."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command's, when it is known whose options they are."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.allow_interspersed_args = bool(given.get("listen"))
        return super().parse_args(ctx, args)


def record(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[--] COMMAND…|HOST:PORT",
            help="What to run; everything after it is its own. With --listen: where to receive HTTP.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        bool, typer.Option("--listen", help="Run nothing; receive OTLP until Ctrl-C.  [127.0.0.1, ports 4318 and 4317]")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", min=0, help="How long the command's other processes may outlive it."
        ),
    ] = 5.0,
    end_rest: Annotated[
        bool, typer.Option("--end-rest", help="End those that do: SIGTERM, then SIGKILL.  [default: they run on]")
    ] = False,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", metavar="N", help="Where --listen receives gRPC.  [default: 4317]")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate chain of --listen, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its private key, PEM.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Whoever sends must show the bearer token in this file."),
    ] = None,
    recording_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The recording's id.  [default: made from the time]")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write what was recorded to this file, as JSON."),
    ] = None,
    recordings: Recordings = None,
    as_json: AsJson = False,
) -> int:
    """Record a command and all of its processes; or, with --listen, whatever sends its traces here.

    \b
      fencepost record -- opentelemetry-instrument celery -A shop worker
      fencepost record --id friday --grace 30 ./start-everything.sh
      fencepost record --listen
      fencepost record --listen 0.0.0.0:4318 --tls-cert cert.pem --tls-key key.pem --token-file token

    The command runs as it would by itself: same terminal, same files, same signals. Its environment says where to
    send OpenTelemetry traces; Python programs under opentelemetry-instrument record themselves, starts included.
    Processes that are killed, stopped or continued are seen and told. When all have ended the recording is sealed.

    stdout is the command's own; what fencepost says goes to stderr. The exit code is the command's, 128 + n after
    signal n; 127 when there is no such command, 126 when it cannot be run, 2 when it could not be recorded.
    """
    here = session(context, recordings, as_json)
    if report is not None:
        _must_be_writable(report)
    if listen:
        where = _only(command or [])
        tls = _tls(tls_cert, tls_key)
        http = _address(where, HTTP_PORT) if where else ("127.0.0.1", HTTP_PORT)
        receiver = (http, _grpc(http, grpc_port), tls, _token(token_file))
        return _listen(here, receiver, recording_id, report)
    if not command:
        raise UsageError("say what to record: `fencepost record -- COMMAND`, or `fencepost record --listen`")
    for given, name in ((grpc_port, "--grpc-port"), (tls_cert or tls_key, "--tls-…"), (token_file, "--token-file")):
        if given is not None:
            raise UsageError(f"{name} is for --listen; a command's spans come over loopback")
    return _run(here, command, recording_id, grace, end_rest, report)


def _must_be_writable(report: Path) -> None:
    """Raises OSError now, and not when what was to be recorded is over. What is there stays."""
    there = report.exists()
    if there and not (report.is_file() or report.is_dir()):
        return  # Whoever reads a pipe would take this for its end.
    with report.open("a"):
        pass
    if not there:
        report.unlink()


def _run(
    here: Session, command: list[str], recording_id: str | None, grace: float, end_rest: bool, report: Path | None
) -> int:
    from fencepost_recorder.errors import CommandNotStarted
    from fencepost_recorder.folder import begin
    from fencepost_recorder.heeding import Heeded
    from fencepost_recorder.session import record_command
    from fencepost_recorder.supervise import HEEDED
    from fencepost_recorder.surroundings import objections

    for objection in objections(os.environ):
        render.complain(objection)
    with Heeded(HEEDED) as heeded, render.heard_or_not("stderr"), redirect_stdout(sys.stderr):
        directory = begin(here.recordings, recording_id)
        try:
            ran = record_command(
                directory,
                command,
                heeded,
                environment=os.environ,
                grace_seconds=grace,
                end_rest=end_rest,
                say=lambda sentence: here.out.note(f"fencepost: {sentence}"),
            )
        except CommandNotStarted as error:
            render.complain(explain(error))
            return error.code
        made = _sealed(directory)
        if made is None:
            return ran.ended.code or USAGE
        _tell_ran(here, made, ran)
        _tell(here, made, report, {**_ran(ran), **_received(ran.received)})
        return ran.ended.code


def _listen(here: Session, where: tuple[Any, ...], recording_id: str | None, report: Path | None) -> int:
    from fencepost_recorder import Receiver
    from fencepost_recorder.folder import begin
    from fencepost_recorder.heeding import ENDING, Heeded
    from fencepost_recorder.session import listen

    http, grpc, tls, token = where
    # A document that was asked for and is not there is a failure; that nobody reads the words is none.
    words = ("stderr",) if here.out.as_json else ("stderr", "stdout")
    with Heeded(ENDING) as heeded, render.heard_or_not(*words):
        directory = begin(here.recordings, recording_id)
        receiver = Receiver(directory / "wal", http=http, grpc=grpc, tls=tls, token=token)
        try:
            receiver.start()
        except Exception:
            # Nothing was recorded, so there is no recording.
            (directory / "wal").rmdir()
            directory.rmdir()
            raise
        here.out.note(_where(receiver, tls is not None), f"; recording {directory.name}, Ctrl-C ends and seals it")
        with _counting() as tick:
            counts = listen(directory, receiver, heeded, tick)
        made = _sealed(directory)
        if made is None:
            return USAGE
        _tell(here, made, report, _received(counts))
    return 0


def _sealed(directory: Path) -> Recording | None:
    """The sealed recording, whatever signals come meanwhile; None, and a sentence, when it has to be done again."""
    from fencepost_analyzer.version import __version__
    from fencepost_recorder import seal
    from fencepost_recorder.errors import RecorderError, RecordingNotFound
    from fencepost_recorder.heeding import undisturbed

    try:
        with undisturbed():
            return seal(directory, tool_version=__version__)
    except RecordingNotFound as error:
        render.complain(f"{explain(error)} any more: if it was moved meanwhile, `fencepost seal` finishes it there")
        return None
    except (RecorderError, OSError) as error:
        # By its path, which is right wherever the recordings are.
        again = f"`fencepost seal {shlex.quote(str(directory))}`"
        render.complain(f"{explain(error)}. What was recorded is safe: {again} finishes it")
        return None


def _tell_ran(here: Session, made: Recording, ran: Ran) -> None:
    ended = ran.ended
    for one in ended.killed[:_SHOWN]:
        # One that was gone before it could be looked at has no name.
        who = f"{one.name} (process {one.pid})" if one.name else f"process {one.pid}, of unknown name,"
        here.out.line("killed    ", f"{who} by {one.signal}")
    if ended.crashes > _SHOWN:
        here.out.line("          ", f"and {ended.crashes - _SHOWN:,} more processes")
    if ended.left:
        pids = text.listed([str(pid) for pid in ended.left[:_SHOWN]])
        here.out.line("left      ", f"{text.counted(len(ended.left), 'process', 'processes')} running on: {pids}")
    if ended.unwatched:
        here.out.line("unwatched ", f"{ended.unwatched:,} processes: raise the limit of open files (ulimit -n)")
    if made.manifest.spans <= ended.spans:
        here.out.line(
            "hint      ",
            "no spans of the command's own came: a Python program makes some under opentelemetry-instrument, any other "
            "if its OpenTelemetry SDK is set up by the environment",
        )


def _tell(here: Session, made: Recording, report: Path | None, more: dict[str, Any]) -> None:
    # Of a log of ours or one without a span, which takes three frames, nobody wants to know.
    found = [one for one in made.manifest.producers if one.pid != os.getpid()]
    others = [one for one in found if one.pid is None or one.frames > 2]
    whose = f" of {text.counted(len(others), 'process', 'processes')}" if others else ""
    contents = f"{text.counted(made.manifest.spans, 'span')}{whose}, {text.counted(made.manifest.gaps, 'gap')}"
    here.out.line("recorded  ", bold(made.id), f": {contents}")
    missing = _missing(made)
    for cause, (gaps, lost) in missing.items():
        here.out.line("missing   ", f"{cause}: {text.counted(gaps, 'gap')}, ", dim(text.lost(cause, lost)))
    here.out.next_steps(f"check {made.id}", f"show {made.id}")
    document = {
        "recording": made.id,
        "directory": str(made.directory),
        "spans": made.manifest.spans,
        "gaps": made.manifest.gaps,
        "missing": {cause: {"gaps": gaps, "lost": lost} for cause, (gaps, lost) in missing.items()},
        **more,
    }
    if here.out.as_json:
        here.out.document(document)
    if report is not None:
        with report.open("w", encoding="utf-8") as stream, redirect_stdout(stream):
            here.out.document(document)


def _missing(made: Recording) -> dict[str, tuple[int, int | None]]:
    """By cause: how many gaps, and how much was lost in them, None where that is not known."""
    found: dict[str, tuple[int, int | None]] = {}
    for row in made.gaps().to_pylist():
        gaps, lost = found.get(row["cause"], (0, 0))
        found[row["cause"]] = (gaps + 1, None if lost is None or row["lost"] is None else lost + row["lost"])
    return found


def _ran(ran: Ran) -> dict[str, Any]:
    ended = ran.ended
    killed = [{"pid": one.pid, "name": one.name, "signal": one.signal} for one in ended.killed]
    return {
        "command": {
            "exit_code": ended.code,
            "signal": ended.signal,
            "crashes": ended.crashes,
            "killed": killed,
            "left": list(ended.left),
            "unwatched": ended.unwatched,
        }
    }


def _received(counts: Counts) -> dict[str, Any]:
    return {
        "received": {
            "requests": counts.requests,
            "spans": counts.spans,
            "bytes": counts.bytes,
            "rejected": counts.rejected,
            "busy": counts.busy,
            "refused": dict(counts.refused),
        }
    }


def _where(receiver: Receiver, tls: bool) -> str:
    scheme = "https" if tls else "http"
    places = []
    if receiver.http_address is not None:
        places.append(f"{scheme}://{_joined(receiver.http_address)}/v1/traces")
    if receiver.grpc_address is not None:
        places.append(f"gRPC {_joined(receiver.grpc_address)}")
    return f"listening on {' and '.join(places)}"


@contextmanager
def _counting() -> Iterator[Any]:
    """Shows how much has come, on a terminal only."""
    if not sys.stderr.isatty():
        yield _silent
        return

    def show(counts: Counts) -> None:
        said = f"{text.counted(counts.spans, 'span')} in {text.counted(counts.requests, 'request')}"
        refused = sum(counts.refused.values()) + counts.rejected
        sys.stderr.write(f"\r{said}{f', {refused:,} refused' if refused else ''}\x1b[K")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")


def _only(words: list[str]) -> str:
    if len(words) > 1:
        raise UsageError("--listen runs nothing: give at most one HOST:PORT, or leave --listen out")
    return words[0] if words else ""


def _address(where: str, port: int) -> tuple[str, int]:
    """`HOST:PORT`, `HOST`, `:PORT` or `[IPv6]:PORT`. Raises UsageError."""
    host, colon, number = where.rpartition(":")
    if not colon or where.endswith("]"):
        host, number = where, str(port)
    if not number.isascii() or not number.isdecimal() or int(number) > 65_535:
        raise UsageError(f"{where!r} is no address: write it like 127.0.0.1:{port} or [::1]:{port}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(number)


def _grpc(http: tuple[str, int], port: int | None) -> tuple[str, int] | None:
    from importlib.util import find_spec

    if find_spec("grpc") is not None:
        return http[0], GRPC_PORT if port is None else port
    if port is not None:
        raise UsageError("gRPC needs one package more: pip install 'fencepost[grpc]'")
    return None


def _tls(certificate: Path | None, key: Path | None) -> Any:
    from fencepost_recorder.receiver import Tls

    if (certificate is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key go together: give both")
    return Tls(certificate, key) if certificate is not None and key is not None else None


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as stream:
        data = stream.read(MAX_TOKEN_BYTES + 1).strip()
    if not data or len(data) > MAX_TOKEN_BYTES or not data.isascii() or len(data.split()) != 1:
        raise UsageError(f"{path} must hold one bearer token: a word of ASCII letters, digits and signs")
    return data.decode()


def _joined(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _silent(counts: Counts) -> None:
    """Nobody watches."""
