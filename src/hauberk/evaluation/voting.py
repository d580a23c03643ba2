"""Votes as records of their own: in blocks that add up, shared by certificates, behind a plan that comes first.

The plan of the first certificate that asks for votes is kept before any of them.  A later certificate from the same
votes, which may have been seen by then, has no valid failure probability: it is exploratory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from hauberk import registry
from hauberk.batch import Batch, Samples
from hauberk.certificates import Certificate
from hauberk.certificates.evidence import VoteCounts, VotePlan
from hauberk.certificates.votes import Block, Poll
from hauberk.classifier import predictor_name
from hauberk.evaluation.keys import Setting, facts_of, revisions, unit_of
from hauberk.evaluation.work import Columns, Task, Work, done
from hauberk.layers.kept import kept_weights
from hauberk.records import Part, RecordKind, part, read, write_once

VERSION = 1  # raised when the streams or the counting of votes change
# of a unit: on what the noise and the weights depend.  Another name, source or tile makes no fresh votes
DRAWN = ("weights", "seed", "device")


@dataclass(frozen=True)
class Counted:
    """Votes that are on record.

    Args:
        votes: of each image, by its id.
        poll: the key of the record of what was fixed before the first vote.
        exploratory: that plan, where it does not allow what is asked now; else empty.
    """

    votes: Mapping[int, VoteCounts]
    poll: str
    exploratory: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Voting(Task):
    """Units of votes: one tile, block after block."""

    certificate: Certificate

    kind: ClassVar[RecordKind] = "votes"

    @property
    def stages(self) -> Sequence[Mapping[str, Any]]:
        """The blocks."""
        return [{"purpose": b.purpose, "start": b.start, "stop": b.stop} for b in self._poll.blocks]

    def concludes(self, found: Part) -> bool:
        """Whether the rule has a bound for the votes so far."""
        return found.unit["purpose"] == "counts" and self._poll.plan.judges(found.unit["stop"])

    def passes(self) -> Sequence[float]:
        """The votes of each block."""
        return [block.stop - block.start for block in self._poll.blocks]

    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:
        """The counts of one block."""
        poll, setting = self._poll, self.setting
        block = poll.blocks[stage]
        with poll.gate(images, setting.tile), kept_weights(poll.base):
            counts = poll.count(images, setting.seed, setting.tile, block)
        ids = images.ids.tolist()
        named = {name: [getattr(block, name)] * len(ids) for name in ("purpose", "start", "stop")}
        return {"id": ids, "counts": counts, **named}, {}

    def left(self, found: Sequence[Part], images: Batch) -> Batch:
        """The images that are not settled."""
        poll = self._poll
        going = [i for i, counts in counted(found).items() if poll.goes_on(counts)]
        return images.select(torch.isin(images.ids, torch.tensor(going, device=images.ids.device)))

    @property
    def _poll(self) -> Poll:
        poll = self.certificate.poll(self.model)
        assert poll is not None  # noqa: S101 - this task is made of a poll alone
        return poll


def count_votes(
    model: nn.Module, samples: Samples, certificate: Certificate, setting: Setting, work: Work
) -> Counted | None:
    """Count the votes that a certificate rests on, those that are on record already read; None where it needs none.

    Args:
        model: what is certified, in eval mode.
        samples: all images of the evaluation; the votes of this shard's are counted.
        certificate: which says what is polled, and the plan.
        setting: names, seed and tile.
        work: where the records go, and which share to do.
    """
    poll = certificate.poll(model)
    if poll is None:
        return None
    noise, facts = registry.spec(poll.plan.noise), facts_of(samples, setting)
    drawn = {"noise": noise} | ({"draws": poll.plan.draws} if poll.plan.draws != "own" else {})
    about = unit_of(model, predictor_name(model), {"name": "votes"} | drawn, setting)
    about |= {"revisions": revisions(poll.plan.noise) | {"votes": VERSION}}
    asked = _plan_part({k: about[k] for k in DRAWN if k in about} | drawn, facts, poll.plan)
    path = work.folder / f"plan-{asked.key}.parquet"
    task = Voting(model=model, setting=setting, about=about, facts=facts, certificate=certificate)
    found = done(task, samples, work, [] if path.exists() else [asked])
    if found:
        write_once(work.folder, asked)
    planned = _planned(read(path)) if found else poll.plan
    concluded = {i: poll.concluded(blocks, setting.seed, i) for i, blocks in counted(found).items()}
    votes = {i: seen for i, seen in concluded.items() if seen is not None}  # a budget may have ended others before
    return Counted(votes, asked.key, {} if planned.allows(poll.plan) else planned.plain())


def counted(parts: Iterable[Part]) -> dict[int, list[tuple[Block, list[int]]]]:
    """The blocks of each image."""
    found: dict[int, list[tuple[Block, list[int]]]] = defaultdict(list)
    for item in parts:
        for row in item.table.to_pylist():
            found[row["id"]].append((Block(row["purpose"], row["start"], row["stop"]), row["counts"]))
    return found


def _plan_part(drawn: Mapping[str, Any], facts: Mapping[str, Any], plan: VotePlan) -> Part:
    """The record of a plan, named by what the votes depend on: there is one for the same votes, the first."""
    unit = {**drawn, "dataset": facts["dataset"], "split": facts["split"]}
    told = plan.plain()
    told["rule"] = ":".join([plan.rule, *map(str, plan.looks)])  # which the column of older records had no room for
    columns = {name: [told[name]] for name in ("n0", "n", "alpha", "rule", "rival")}
    return part("plan", unit, {}, {"id": [0], "noise": [json.dumps(told["noise"])], **columns})


def _planned(item: Part) -> VotePlan:
    (row,) = item.table.to_pylist()
    rule, *looks = row["rule"].split(":")
    told = {"noise": json.loads(row["noise"]), "rule": rule, "looks": list(map(int, looks))}
    return VotePlan.read(row | told | {"draws": item.unit.get("draws", "own")})
