"""Units on a Ray cluster; records come back through Ray's object store, so that no shared folder is needed."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from hauberk.errors import HauberkError, first_line
from hauberk.executors.base import CONFIG, DEATHS, Crew, Executor, Job, mourned, outcome, result
from hauberk.executors.packing import packed, unpacked


@dataclass(frozen=True, config=CONFIG)
class Ray(Executor):
    """Units on a Ray cluster, one Ray task each; a unit whose task dies is done again, if needed on another machine.

    Ray needs the extra ``scale``: ``pip install 'hauberk[scale]'``, in the same version on every machine.

    Args:
        address: address of the cluster, ``auto`` or ``host:port``; None takes the cluster that this machine belongs to,
            else starts Ray on this machine alone.
        workers: units under way at one time; None takes as many as the cluster has room for.
        cpus: cores, and threads, for each unit.
        gpus: GPUs, or a share of one, for each unit.
    """

    address: str | None = None
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0

    @contextmanager
    def at(self, job: Job) -> Iterator[Crew]:
        """A crew of Ray tasks; the cluster is left unchanged, and one that was started here ends with this process."""
        crew = _Crew(_connected(self.address), job, self)
        try:
            yield crew
        finally:
            crew.end()


class _Crew:
    def __init__(self, ray: Any, job: Job, how: Ray) -> None:
        self._ray = ray
        room = ray.cluster_resources()
        places = int(room.get("CPU", 1)) // how.cpus
        if how.gpus:
            places = min(places, int(room.get("GPU", 0) / how.gpus))
        if places < 1:
            raise HauberkError(
                f"the cluster has too few resources for a unit of {how.cpus} cores and {how.gpus:g} GPUs",
                "request fewer cores or GPUs",
            )
        self.places = min(places, how.workers or places)
        self._job = ray.put(packed(job, ray.cloudpickle.CloudPickler))
        self._do = ray.remote(num_cpus=how.cpus, num_gpus=how.gpus, max_retries=DEATHS - 1)(_do)
        self._threads = how.cpus
        self._units: dict[Any, Any] = {}

    def give(self, unit: Any) -> None:
        """Start a Ray task for the unit."""
        self._units[self._do.remote([self._job], unit, self._threads)] = unit

    def take(self, until: float | None = None) -> tuple[Any, Any] | None:
        """The next unit that is done; Ray itself repeats a task that died."""
        rest = None if until is None else max(0.0, until - time.monotonic())
        ended, _ = self._ray.wait(list(self._units), num_returns=1, timeout=rest)
        if not ended:
            return None
        done = ended[0]
        unit = self._units.pop(done)
        died = self._ray.exceptions
        try:
            found = self._ray.get(done)
        except (died.WorkerCrashedError, died.OutOfMemoryError, died.NodeDiedError) as error:
            raise mourned(unit, DEATHS, f"({first_line(error)})") from error
        except died.RayError as error:
            raise HauberkError(
                f"Ray failed at {unit}: {first_line(error)}", "check the cluster with: ray status"
            ) from error
        return unit, result(found)

    def end(self) -> None:
        """Cancel all tasks that are under way."""
        for task in self._units:
            self._ray.cancel(task, force=True)


def _connected(address: str | None) -> Any:
    """Ray, connected to a cluster."""
    try:
        import ray
    except ImportError as error:
        raise HauberkError("Ray is not installed", "install it with: pip install 'hauberk[scale]'") from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here sends no reports
        try:
            ray.init(address, include_dashboard=None if address else False, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise HauberkError(
                f"no Ray cluster at {address}: {first_line(error)}", "check the cluster with: ray status"
            ) from error
    return ray


# --- in a worker ------------------------------------------------------------------------------------------------


def _do(job: list[Any], unit: Any, threads: int) -> tuple[Any, Exception | None]:
    """Do one unit.  The job is in a list, so that Ray does not fetch it, and the worker fetches it only once."""
    torch.set_num_threads(threads)
    work, error = _begun(job[0])
    return (None, error) if work is None else outcome(work, unit)


_open = ExitStack()


@functools.lru_cache(maxsize=1)
def _begun(job: Any) -> tuple[Callable[[Any], Any] | None, Exception | None]:
    """The function that does units of a job; a previous job is ended."""
    import ray

    _open.close()
    found, error = outcome(unpacked, ray.get(job))
    return (None, error) if error is not None else (_open.enter_context(found.at_work()), None)
