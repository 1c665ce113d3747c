"""Recording under `opentelemetry-instrument`, whatever provider a program has, and never to its harm."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation import auto_instrumentation

from fencepost_recorder import begin, seal

Instrumented = Callable[..., subprocess.CompletedProcess[str]]
HOOKS = str(Path(auto_instrumentation.__file__).parent)

# What opentelemetry-distro consists of: a configurator that sets the SDK's provider, with exporters by name.
CONFIGURATOR = """
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
class Configurator(_OTelSDKConfigurator):
    pass
"""
# A library's instrumentation that breaks, and with it all that comes after.
BROKEN = """
class Broken:
    def __init__(self): raise RuntimeError("this instrumentation is broken")
"""
# A tracer provider that is none of the SDK's.
FOREIGN = """
from opentelemetry import trace
class Foreign(trace.NoOpTracerProvider):
    pass
"""
ONE_SPAN = """
    from opentelemetry import trace
    with trace.get_tracer("scope").start_as_current_span("work"):
        pass
    print("done")
"""


def package(directory: Path, name: str, source: str, entry_point: str) -> Path:
    """An installed package with one entry point, as a folder for PYTHONPATH."""
    group, _, target = entry_point.partition("=")
    (directory / f"{name}-1.dist-info").mkdir(parents=True)
    (directory / f"{name}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (directory / f"{name}-1.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}:{target}\n")
    (directory / f"{name}.py").write_text(source)
    return directory


@pytest.fixture
def instrumented(tmp_path: Path) -> Instrumented:
    """Run Python source as `opentelemetry-instrument` does: its sitecustomize first on PYTHONPATH."""

    def run(source: str, wal: Path | None = None, *more: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([HOOKS, *map(str, more)])}
        env |= {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
        env |= {"FENCEPOST_WAL": str(wal)} if wal is not None else {}
        command = [sys.executable, str(program)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def distro(tmp_path: Path) -> Path:
    return package(tmp_path / "distro", "distro_like", CONFIGURATOR, "opentelemetry_configurator=Configurator")


def sealed(directory: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The spans and the gaps of a recording."""
    recording = seal(directory, tool_version="test")
    assert recording.manifest.duplicates == 0
    return recording.spans().to_pylist(), recording.gaps().to_pylist()


def test_the_real_command_records_starts_and_ends_of_an_unchanged_program(recordings: Path, tmp_path: Path) -> None:
    """`opentelemetry-instrument python …` records a killed program's spans: the ended and the one that never did."""
    directory = begin(recordings, "command")
    program = tmp_path / "program.py"
    program.write_text(
        "import os\n"
        "from opentelemetry import trace\n"
        "tracer = trace.get_tracer('scope')\n"
        "tracer.start_span('ended').end()\n"
        "tracer.start_span('open')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [Path(sys.executable).with_name("opentelemetry-instrument"), sys.executable, program]
    env = {**os.environ, "FENCEPOST_WAL": str(directory / "wal"), "OTEL_SERVICE_NAME": "shop"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    spans, gaps = sealed(directory)
    assert {row["name"]: row["duration_time_unix_nano"] is not None for row in spans} == {"ended": True, "open": False}
    assert {row["service_name"] for row in spans} == {"shop"}
    assert gaps == []


def test_a_distributions_provider_gets_the_processor_and_keeps_its_exporters(
    recordings: Path, instrumented: Instrumented, distro: Path
) -> None:
    """With a configurator in place its provider is recorded, and its own exporter is shown every span as before."""
    directory = begin(recordings, "distro")
    done = instrumented(ONE_SPAN, directory / "wal", distro, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"name": "work"' in done.stdout
    spans, gaps = sealed(directory)
    assert [(row["name"], row["service_name"]) for row in spans] == [("work", "shop")]
    assert gaps == []


SET_BY_THE_PROGRAM = """
    import os
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    from fencepost_recorder.exporter import FencepostSpanExporter
    early = trace.get_tracer("scope")
    def set_up():
        provider = TracerProvider(resource=Resource({"service.name": "own"}))
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        provider.add_span_processor(SimpleSpanProcessor(FencepostSpanExporter()))
        trace.set_tracer_provider(provider)
    if os.fork() == 0:
        set_up()
        early.start_span("early").end()
        trace.get_tracer("scope").start_span("late").end()
        assert trace.get_tracer_provider().force_flush()
        os._exit(0)
    os.wait()
"""


def test_whose_spans_they_are_is_told_where_a_stock_set_up_does_not(
    recordings: Path, instrumented: Instrumented, distro: Path
) -> None:
    """A process and its fork are told by host and pid, without which no clock compares; what the program says stays."""
    source = """
        import os
        from opentelemetry import trace
        with trace.get_tracer("scope").start_as_current_span("parent"):
            pass
        if os.fork() == 0:
            with trace.get_tracer("scope").start_as_current_span("child"):
                pass
            os._exit(0)
        os.wait()
    """
    told = {}
    for name, environment in (("stock", {}), ("named", {"OTEL_RESOURCE_ATTRIBUTES": "host.name=one"})):
        directory = begin(recordings, name)
        assert instrumented(source, directory / "wal", distro, **environment).returncode == 0
        recording = seal(directory, tool_version="test")
        assert recording.gaps().num_rows == 0
        pids = {one.producer: one.pid for one in recording.manifest.producers}
        for span in recording.spans().to_pylist():
            resource = json.loads(span["resource_attributes"])
            assert resource["process.pid"] == pids[span["producer"]]
            told[name, span["name"]] = resource["host.name"]
    here = socket.gethostname()
    assert told == {
        ("stock", "parent"): here,
        ("stock", "child"): here,
        ("named", "parent"): "one",
        ("named", "child"): "one",
    }


def test_a_provider_that_the_program_sets_in_a_forked_child_takes_our_place(
    recordings: Path, instrumented: Instrumented
) -> None:
    """As Celery's guides have it: the child's own provider is set without a warning, exports, and is recorded, once
    though it has an exporter of ours that is shown each span the moment it ends."""
    directory = begin(recordings, "own")
    done = instrumented(SET_BY_THE_PROGRAM, directory / "wal")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"name": "late"' in done.stdout
    spans, gaps = sealed(directory)
    assert sorted(row["name"] for row in spans) == ["early", "late"]
    assert {row["service_name"] for row in spans if row["name"] == "late"} == {"own"}
    assert gaps == []


def test_a_program_that_installs_the_recorder_itself_is_recorded_once(
    recordings: Path, instrumented: Instrumented
) -> None:
    """`install` in the code and the entry point at once: every span once, under the name that the code gave."""
    directory = begin(recordings, "installed")
    done = instrumented(
        'from fencepost_recorder import install\ninstall("mine")\n' + textwrap.dedent(ONE_SPAN), directory / "wal"
    )
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert [(row["name"], row["service_name"]) for row in spans] == [("work", "mine")]
    assert gaps == []


CHILDREN = """
    import multiprocessing, os, subprocess, sys, threading
    from opentelemetry import trace
    def work(name):
        with trace.get_tracer("scope").start_as_current_span(name):
            pass
    if __name__ == "__main__":
        thread = threading.Thread(target=work, args=("thread",))
        thread.start()
        thread.join()
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(target=work, args=(method,))
            child.start()
            child.join()
        work("main")
        os.execv(sys.executable, [sys.executable, "-c", "from program import work; work('exec')"])
"""


def test_threads_forks_spawns_and_execs_are_recorded(
    recordings: Path, instrumented: Instrumented, tmp_path: Path
) -> None:
    """Whatever way a program multiplies, each process is recorded, as an instance of its own."""
    directory = begin(recordings, "children")
    done = instrumented(CHILDREN, directory / "wal", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert sorted(row["name"] for row in spans) == ["exec", "fork", "main", "spawn", "thread"]
    assert gaps == []
    by_name = {row["name"]: row for row in spans}
    assert by_name["thread"]["producer"] == by_name["main"]["producer"]
    for column in ("producer", "service_instance_id"):
        assert len({row[column] for row in spans}) == 4


@pytest.mark.parametrize(
    ("source", "environment", "sentence"),
    [
        (ONE_SPAN, {"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is set"),
        (ONE_SPAN, {"OTEL_PYTHON_TRACER_PROVIDER": "foreign"}, "foreign.Foreign, takes no span processors"),
    ],
)
def test_a_process_that_cannot_be_recorded_says_so_once_and_so_does_the_recording(
    recordings: Path,
    instrumented: Instrumented,
    tmp_path: Path,
    source: str,
    environment: dict[str, str],
    sentence: str,
) -> None:
    """One line on stderr, for all the processes of a program; the program runs; the recording has a gap."""
    directory = begin(recordings, "unrecorded")
    foreign = package(tmp_path / "foreign", "foreign", FOREIGN, "opentelemetry_tracer_provider=Foreign")
    again = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1'], check=True)\n"
    done = instrumented(again + textwrap.dedent(source), directory / "wal", foreign, **environment)
    assert (done.returncode, done.stdout) == (0, "done\n")
    [line] = done.stderr.splitlines()
    assert line.startswith("fencepost: this program goes on unrecorded: ")
    assert sentence in line
    spans, gaps = sealed(directory)
    assert spans == []
    assert {row["cause"] for row in gaps} == {"unrecorded"}
    assert all(sentence in row["detail"] for row in gaps)
    # One for the program and one for what it started, though both hooks find it out.
    assert len({row["detail"] for row in gaps}) == len(gaps) == 2


def test_a_folder_that_is_not_there_costs_the_program_one_line(instrumented: Instrumented, tmp_path: Path) -> None:
    """FENCEPOST_WAL without its folder: a sentence with the way out, and the program runs."""
    done = instrumented(ONE_SPAN, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (0, "done\n")
    [line] = done.stderr.splitlines()
    assert line.startswith("fencepost: this program goes on unrecorded: cannot write the log ")


def test_without_a_recording_nothing_of_ours_is_loaded(instrumented: Instrumented) -> None:
    """Where FENCEPOST_WAL is not set the entry points cost two small modules, and change nothing."""
    source = """
        import sys
        from opentelemetry import trace
        print(sorted(name for name in sys.modules if name.startswith("fencepost_recorder")))
        print(type(trace.get_tracer_provider()).__name__)
    """
    done = instrumented(source)
    modules = ["fencepost_recorder", "fencepost_recorder.autoload", "fencepost_recorder.errors"]
    assert done.stdout == f"{modules}\nProxyTracerProvider\n"
    assert done.stderr == ""


def test_a_broken_instrumentation_does_not_keep_the_recorder_away(
    recordings: Path, instrumented: Instrumented, tmp_path: Path
) -> None:
    """An instrumentation that raises ends `opentelemetry-instrument`'s set-up; by then we are attached."""
    directory = begin(recordings, "broken")
    broken = package(tmp_path / "broken", "broken", BROKEN, "opentelemetry_instrumentor=Broken")
    done = instrumented(ONE_SPAN, directory / "wal", broken)
    assert "this instrumentation is broken" in done.stderr
    assert "fencepost" not in done.stderr
    spans, _ = sealed(directory)
    assert [row["name"] for row in spans] == ["work"]


def test_a_sampler_makes_a_gap(recordings: Path, instrumented: Instrumented, distro: Path) -> None:
    """A provider that samples hides spans from the recorder; in every process the recording says that it does."""
    directory = begin(recordings, "sampled")
    fork = "import os\nif os.fork(): os.wait()\n"
    environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"}
    done = instrumented(fork + textwrap.dedent(ONE_SPAN), directory / "wal", distro, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert [row["name"] for row in spans] == ["work", "work"]
    assert [row["cause"] for row in gaps] == ["sampled", "sampled"]
    assert {row["producer"] for row in gaps} == {row["producer"] for row in spans}


def test_a_sampler_that_lets_nothing_through_makes_a_gap(recordings: Path, instrumented: Instrumented) -> None:
    """The program sets its provider itself, and no span ever reaches us; nor one of a child."""
    directory = begin(recordings, "nothing")
    source = """
        import os
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
        trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
        if os.fork():
            os.wait()
        trace.get_tracer("scope").start_span("work").end()
    """
    done = instrumented(source, directory / "wal")
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert spans == []
    assert [row["cause"] for row in gaps] == ["sampled", "sampled"]


@pytest.mark.parametrize("ours", ["simple", "batch"])
def test_the_exporter_beside_the_processor_records_nothing_twice(
    recordings: Path, instrumented: Instrumented, distro: Path, ours: str
) -> None:
    """OTEL_TRACES_EXPORTER=fencepost together with the entry point: each span once, with its start."""
    directory = begin(recordings, "both")
    source = f"""
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from fencepost_recorder.exporter import FencepostSpanExporter
        if {ours == "simple"}:
            trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(FencepostSpanExporter()))
        trace.get_tracer("scope").start_span("work").end()
    """
    exporter = "fencepost" if ours == "batch" else "none"
    done = instrumented(source, directory / "wal", distro, OTEL_TRACES_EXPORTER=exporter)
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert [row["name"] for row in spans] == ["work"]
    assert spans[0]["producer_seq"] != spans[0]["producer_end_seq"]
    assert gaps == []


def test_the_exporter_alone_records_ends_and_says_that_more_may_be_missing(recordings: Path, run: Any) -> None:
    """Without the processor the exporter's spans are there once they ended, under an `unsequenced` gap."""
    directory = begin(recordings, "exporter")
    source = """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from fencepost_recorder.exporter import FencepostSpanExporter
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(FencepostSpanExporter()))
        tracer = provider.get_tracer("scope")
        tracer.start_span("ended", attributes={"order": "A-7"}).end()
        tracer.start_span("open")
    """
    done = run(source, directory / "wal")
    assert (done.returncode, done.stderr) == (0, "")
    spans, gaps = sealed(directory)
    assert [(row["name"], row["span_attributes"]) for row in spans] == [("ended", '{"order":"A-7"}')]
    assert [row["cause"] for row in gaps] == ["unsequenced"]


def test_the_exporter_without_a_recording_says_so_and_lets_the_program_run(run: Any) -> None:
    """OTEL_TRACES_EXPORTER=fencepost without FENCEPOST_WAL is one line, not an exception."""
    source = """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from fencepost_recorder.exporter import FencepostSpanExporter
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(FencepostSpanExporter()))
        for _ in range(3):
            provider.get_tracer("scope").start_span("work").end()
    """
    done = run(source)
    assert done.returncode == 0
    assert done.stderr.startswith("fencepost: the traces exporter `fencepost` records nothing: set FENCEPOST_WAL ")
    assert done.stderr.count("\n") == 1


def test_a_program_without_an_sdk_of_its_own_may_fork(instrumented: Instrumented, recordings: Path) -> None:
    """In a forked child the SDK asks its detectors again, by an executor: our provider, made before the program loaded
    that, must not wait there for the lock that the fork holds."""
    directory = begin(recordings, "forking")
    done = instrumented(
        """
        import concurrent.futures.thread, os
        from opentelemetry import trace
        if os.fork() == 0:
            trace.get_tracer("scope").start_span("child").end()
            os._exit(0)
        print(os.wait()[1])
        """,
        directory / "wal",
    )
    assert [span["name"] for span in sealed(directory)[0]] == ["child"]
    assert (done.returncode, done.stdout) == (0, "0\n")
