"""Units in several processes of this machine, each with the model in its memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass as plain_dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from hauberk.executors.base import CONFIG, DEATHS, Crew, Executor, Job, cores, mourned, outcome, result
from hauberk.executors.packing import packed, unpacked

GONE = (EOFError, ConnectionError, BrokenPipeError)
FORKS = sys.platform == "linux"
READY = None  # the message of a worker before its first unit


@dataclass(frozen=True, config=CONFIG)
class Processes(Executor):
    """Units in several processes of this machine; if a process dies, another process does its unit again.

    On Linux workers are forks of this process, unless it has used a GPU.  Otherwise workers are new processes, which
    get the model pickled, and a script must guard its start with ``if __name__ == "__main__"``.

    Args:
        workers: number of processes; None takes as many as there are cores for their threads.
        threads: torch threads in each process.
    """

    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1

    @contextmanager
    def at(self, job: Job) -> Iterator[Crew]:
        """A crew of processes, which start when there is a unit for them."""
        crew = _Crew(job, self.workers or max(1, cores() // self.threads), self.threads)
        try:
            yield crew
        finally:
            crew.end()


@plain_dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    order: _Order | None = None  # the order that it works on


@plain_dataclass
class _Order:
    unit: Any
    deaths: int = 0


class _Crew:
    def __init__(self, job: Job, places: int, threads: int) -> None:
        self.places = places
        self._threads = threads
        self._job = job
        self._forks = FORKS and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._packed = b"" if self._forks else packed(job)
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._orders: deque[_Order] = deque()

    def give(self, unit: Any) -> None:
        """Queue a unit, and start a worker if none is free and there is a place for one."""
        self._orders.append(_Order(unit))
        if not self._idle and len(self._workers) < self.places:
            self._start()

    def take(self, until: float | None = None) -> tuple[Any, Any] | None:
        """The next unit that is done."""
        while until is None or time.monotonic() < until:
            self._hand_out()
            rest = None if until is None else max(0.0, until - time.monotonic())
            for connection in wait([w.connection for w in self._workers], rest):
                worker = next(w for w in self._workers if w.connection is connection)
                try:
                    said = _received(worker.connection)
                except GONE:
                    self._bury(worker)
                    break  # the messages of other workers stay readable
                order, worker.order = worker.order, None
                self._idle.append(worker)
                if said is not READY and order is not None:
                    return order.unit, result(said)
                if said is not READY:
                    result(said)  # the worker could not begin
        return None

    def end(self) -> None:
        """End all workers at once; their unfinished units are lost."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()

    def _hand_out(self) -> None:
        while self._idle and self._orders:
            worker = self._idle.pop()
            worker.order = self._orders.popleft()
            with suppress(*GONE):  # its end is detected while its answer is awaited
                _send(worker.connection, worker.order.unit)

    def _bury(self, worker: _Worker) -> None:
        """Remove a dead worker, and let a new worker do its unit."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        self._idle = [w for w in self._idle if w is not worker]
        order = worker.order or (self._orders.popleft() if self._orders else None)
        if order is not None:
            order.deaths += 1
            if order.deaths >= DEATHS:
                raise mourned(order.unit, order.deaths, _how(worker.process.exitcode))
            self._orders.appendleft(order)
            self._start()

    def _start(self) -> None:
        context: BaseContext = multiprocessing.get_context("fork" if self._forks else "spawn")
        ours, theirs = context.Pipe()
        job = self._job if self._forks else self._packed
        process = context.Process(target=_work, args=(job, theirs, self._threads), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))


def _send(connection: Connection, value: Any) -> None:
    """Copy a value to the other end, because ``Connection.send`` would share the memory of tensors by open files."""
    connection.send_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def _received(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own driver or worker


def _how(code: int | None) -> str:
    """How a worker died, in words."""
    if code is not None and code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _work(job: Job | bytes, connection: Connection, threads: int) -> None:
    """Do units in a worker until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    threading.Thread(target=_end_with_driver, daemon=True).start()
    torch.set_num_threads(threads)
    found, error = outcome(unpacked, job) if isinstance(job, bytes) else (job, None)
    if error is not None:
        _send(connection, (None, error))
        return
    with found.at_work() as work:
        _send(connection, READY)
        while True:
            try:
                unit = _received(connection)
            except GONE:
                return
            _send(connection, outcome(work, unit))


def _end_with_driver() -> None:
    """End this process when its driver has ended for any reason, even in the middle of a unit."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
