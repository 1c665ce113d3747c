"""A Celery application as users write them; the tests run its worker, kill it, and read what its spans say.

The environment tells it SHOP_BROKER, the address of a Redis; SHOP_SPANS, a directory for span files; SHOP_TRACING,
`export` for the stock exporter or `recorder` for fencepost's; and SHOP_VISIBILITY_TIMEOUT_S. As a program it is
the producer: it publishes the tasks named on its command line and prints their ids.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import redis
from celery import Celery, Task
from celery.signals import worker_process_init
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import set_tracer_provider

BROKER = os.environ["SHOP_BROKER"]
RETRY_IN_S = 0.2

app = Celery("shop", broker=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": int(os.environ["SHOP_VISIBILITY_TIMEOUT_S"])},
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


def trace_this_process() -> None:
    """One process, one file of spans. Each span is written when it ends: no batch waits to be lost."""
    spans = Path(os.environ["SHOP_SPANS"])
    if os.environ["SHOP_TRACING"] == "recorder":
        from fencepost_recorder import install

        install("shop", wal=spans)
    else:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(spans / f"{os.getpid()}.jsonl")))
        set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@worker_process_init.connect(weak=False)
def _trace_pool_process(**_: Any) -> None:
    trace_this_process()


def tell(task: Task[..., None], what: str) -> int:
    """Tell the test that this task has come to a point; returns how often this job has been there."""
    with redis.Redis.from_url(BROKER) as server:
        times = int(server.incr(f"{what}:{task.request.id}"))
        server.rpush(what, json.dumps({"id": task.request.id, "pid": os.getpid(), "times": times}))
        return times


def wait_for(what: str) -> None:
    """Block until the test, or another task, says so."""
    with redis.Redis.from_url(BROKER) as server:
        server.blpop([what], timeout=30)


@app.task(bind=True)
def mail(self: Task[..., None]) -> None:
    """Nothing goes wrong."""
    tell(self, "done")


@app.task(bind=True, max_retries=3)
def flaky(self: Task[..., None]) -> None:
    """Asks to be retried, once."""
    if tell(self, "tried") == 1:
        raise self.retry(countdown=RETRY_IN_S, exc=ConnectionError("the mail server hung up"))
    tell(self, "done")


@app.task(bind=True)
def broken(self: Task[..., None]) -> None:
    """Fails, and is not retried."""
    tell(self, "done")
    raise ValueError("no such customer")


@app.task(bind=True)
def charge(self: Task[..., None]) -> None:
    """Celery's default, acknowledged before it runs: who is killed in here is not tried again."""
    tell(self, "charging")
    wait_for("never")


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def thumbnail(self: Task[..., None]) -> None:
    """Acknowledged after it ran: the first attempt waits to be killed, the second finishes."""
    if tell(self, "drawing") == 1:
        wait_for("never")
    tell(self, "done")


@app.task(bind=True, acks_late=True)
def report(self: Task[..., None]) -> None:
    """Takes longer than the visibility timeout: it ends when the test has seen a second attempt begin."""
    tell(self, "reporting")
    wait_for("report seen twice")
    tell(self, "done")


def publish(name: str) -> str:
    """Publish one task; a name that the application does not know goes by its name alone."""
    task = app.tasks.get(f"shop.{name}")
    result = task.apply_async() if task is not None else app.send_task(f"shop.{name}")
    return str(result.id)


if __name__ == "__main__":
    trace_this_process()
    json.dump([publish(name) for name in sys.argv[1:]], sys.stdout)
