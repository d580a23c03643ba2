"""What an evaluation writes into run.json: time, machine, the hash of every record, and the planned samples."""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch import Tensor

from hauberk import reading
from hauberk.records import Part, RecordKind, content_hash, read_all
from hauberk.runs import Run, environment
from hauberk.storage import LOCK, locked
from hauberk.verify.plans import plan_key, ranges, wanted


def sign(
    run: Run, timing: str, started: float, parts: Iterable[Part] = (), ids: Tensor | None = None, stopped: bool = False
) -> None:
    """Keep time, machine, hashes and plan.

    The plan is what was asked for now and what earlier calls, killed ones too, have left of the same evaluation; so
    a row that is taken out later, or put in, is seen.

    Args:
        run: whose records they are.
        timing: name of the time spent, for example ``attack_seconds``.
        started: of ``time.monotonic``.
        parts: what was done now.
        ids: the samples that were asked for, all shards together.
        stopped: whether a budget ended it: then the plan is what is on record, with all that was planned before.
    """
    asked = {} if ids is None else {plan_key(p.kind, p.unit, p.facts): p for p in parts}
    with run.editing() as info:  # shards of other processes sign too, and none may lose what another wrote
        timings = info.get("timings", {})
        timings[timing] = round(timings.get(timing, 0.0) + time.monotonic() - started, 1)
        with locked(run.records / LOCK):  # no other shard joins files meanwhile
            files = {p.name: reading.sha256(p) for p in sorted(run.records.glob("*.parquet"))}
        # the training's own environment stays as it is: threads and machine may differ
        environments = info.get("environments", {}) | {timing.removesuffix("_seconds"): environment()}
        hashes = {"recipe": content_hash(run.recipe)} | info.get("hashes", {}) | {"records": files}
        plans = info.get("plans", {})
        if ids is not None and asked:
            known = {key: wanted(plans.get(key, ())) if stopped else set(ids.tolist()) for key in asked}
            for key, found in _recorded(run, {p.kind for p in asked.values()}):
                known.get(key, set()).update(found)
            plans = plans | {key: ranges(found) for key, found in known.items()}
        info.update(timings=timings, hashes=hashes, environments=environments, plans=plans)


def _recorded(run: Run, kinds: set[RecordKind]) -> Iterable[tuple[str, list[int]]]:
    """The plan and the ids of each record of some kinds."""
    for found in (part for kind in sorted(kinds) for part in read_all(run.records, kind)):
        yield plan_key(found.kind, found.unit, found.facts), found.column("id").tolist()
