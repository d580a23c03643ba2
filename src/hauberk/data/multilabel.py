"""Images that may show several findings at once, and the named rules that make one class of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from hauberk.data.dataset import Dataset, check_splits
from hauberk.data.split import Split, SplitName, check_pixels, check_unique
from hauberk.data.streamed import ImageFiles
from hauberk.errors import HauberkError

RULES = ("only_positive", "at_most_one", "any_finding", "finding:NAME")
Rule = Annotated[str, Field(pattern="^(only_positive|at_most_one|any_finding|finding:.+)$")]
NO_FINDING = "no finding"


@dataclass(frozen=True, eq=False)
class MultiLabelSplit:
    """The images of one split, each with a yes or no for every finding.

    Args:
        name: ``train``, ``val`` or ``test``.
        images: uint8 tensor, shape (N, C, H, W), or files of such.
        multi_label: bool tensor, shape (N, F).
        ids: int64 tensor, shape (N,), unique within the split.
    """

    name: SplitName
    images: Tensor | ImageFiles
    multi_label: Tensor
    ids: Tensor

    def __post_init__(self) -> None:
        check_pixels(self.name, self.images)
        check_unique(self.name, self.ids)
        if self.multi_label.dtype != torch.bool or len(self.multi_label) != len(self.images):
            raise HauberkError(
                f"{self.name}: expected bool labels of shape ({len(self.images)}, F), "
                f"got {self.multi_label.dtype} of shape {tuple(self.multi_label.shape)}",
                "give one row for each image: labels.bool()",
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class MultiLabelDataset:
    """A multi-label data set, as published.  Classifiers here give one class; a rule turns it into such a data set.

    Args:
        name: the data set's name.
        findings: the name of each finding, in the order of the columns of ``multi_label``.
        train: what is learnt from.
        val: what choices are made on.
        test: what results are reported on.
    """

    name: str
    findings: tuple[str, ...]
    train: MultiLabelSplit
    val: MultiLabelSplit
    test: MultiLabelSplit

    def __post_init__(self) -> None:
        check_splits(self.name, {s.name: (s.images, s.ids) for s in (self.train, self.val, self.test)})
        for part in (self.train, self.val, self.test):
            if part.multi_label.shape[1:] != (len(self.findings),):
                raise HauberkError(
                    f"{self.name}, {part.name}: expected labels of shape (N, {len(self.findings)}), "
                    f"got {tuple(part.multi_label.shape)}",
                    "give one column for each finding",
                )

    def single_label(self, rule: Rule) -> Dataset:
        """One class for each image, by one of four rules.

        - ``only_positive``: images with exactly one finding, whose class it is; all others are left out.
        - ``at_most_one``: the same, and images without a finding are the class "no finding" (label 0).
        - ``any_finding``: all images, two classes: "no finding" (0) and "finding" (1).
        - ``finding:NAME``: all images, two classes: "no NAME" (0) and "NAME" (1), whatever else an image shows.

        Ids stay those of the full data set.  The first two change which patients are seen, so numbers under
        different rules do not compare; the rule is part of the name.

        Raises:
            HauberkError: on an unknown rule or finding.
        """
        one = rule.removeprefix("finding:") if rule.startswith("finding:") else None
        if one is not None and one not in self.findings:
            raise HauberkError(f"{self.name} has no finding {one!r}", f"choose one of {', '.join(self.findings)}")
        if rule not in RULES and one is None:
            raise HauberkError(
                f"{self.name} has several findings for each image, and {rule!r} is not a rule that turns them into one "
                "class",
                f"choose rule: {', '.join(RULES)}",
            )
        classes = {
            "only_positive": self.findings,
            "at_most_one": (NO_FINDING, *self.findings),
            "any_finding": (NO_FINDING, "finding"),
            f"finding:{one}": (f"no {one}", f"{one}"),
        }[rule]
        column = None if one is None else self.findings.index(one)
        train, val, test = (_apply(part, rule, column) for part in (self.train, self.val, self.test))
        return Dataset(f"{self.name}-{rule}", classes, train, val, test)


def _apply(part: MultiLabelSplit, rule: Rule, column: int | None) -> Split:
    count = part.multi_label.sum(1)
    finding = part.multi_label.to(torch.int64).argmax(1)
    if column is not None:
        keep, labels = torch.ones_like(count, dtype=torch.bool), part.multi_label[:, column].long()
    elif rule == "any_finding":
        keep, labels = torch.ones_like(count, dtype=torch.bool), (count > 0).long()
    elif rule == "at_most_one":
        keep, labels = count <= 1, torch.where(count == 1, finding + 1, 0)
    else:
        keep, labels = count == 1, finding
    return Split(part.name, part.images[keep], labels[keep], part.ids[keep])
