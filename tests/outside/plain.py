"""A Celery application that knows nothing of tracing: what it did it says in a file of its own, by one write a line."""

from __future__ import annotations

import os
import time

from celery import Celery, Task

app = Celery("plain", broker=os.environ["SHOP_BROKER"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3_600},
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


def say(what: str, task: Task[..., None]) -> None:
    """Appended at once and wholly: it is true even of a process that is killed right after it."""
    descriptor = os.open(os.environ["PLAIN_TRUTH"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{what} {task.request.id} {os.getpid()}\n".encode())
    os.close(descriptor)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def work(self: Task[..., None], milliseconds: int) -> None:
    say("began", self)
    time.sleep(milliseconds / 1_000)
    say("did", self)
