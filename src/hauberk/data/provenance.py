"""Where generated images come from, who labelled them, and how they were looked at: what a run says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hauberk.errors import HauberkError

LEARNT = ("train", "other", "unknown")  # what a generator may have learnt from: this training split, or other images


@dataclass(frozen=True)
class Provenance:
    """What is known of images that are no photographs of the data set's own.

    Args:
        generator: what made them, for example ``gaussian`` or ``ddpm``.
        trained_on: what that learnt from: ``train`` is the data set's training split and nothing of the other splits,
            ``other`` other images, ``unknown`` that nobody has said it.
        conditional: whether it was asked for images of a class; None where nobody has said it.
        labels: ``condition`` (the class that was asked for), ``file`` or ``labeller``.
        labeller: the model that gave the labels, by its predictor name.
        labeller_accuracy: of that model on the data set's validation images.
        judge: the model that was asked whether it agrees with the labels, by its predictor name.
        judge_accuracy: of that model on the data set's validation images.
        agreement: the share of images whose label the judge gives too, before any are left out.
        filter: which of the images were kept.
        images: how many there are.
        classes: how many there are of each class.
        train_copies: how many are training images, pixel by pixel; none is a validation or test image.
        nearest: distances to the nearest training image and to the nearest held-out one, see ``nearest_distances``.
        content: hash of images and labels.
        settings: of the generator, as plain values.
    """

    generator: str
    trained_on: str
    conditional: bool | None = None
    labels: str = "condition"
    labeller: str = ""
    labeller_accuracy: float | None = None
    judge: str = ""
    judge_accuracy: float | None = None
    agreement: float | None = None
    filter: str = "none"
    images: int = 0
    classes: tuple[int, ...] = ()
    train_copies: int = 0
    nearest: Mapping[str, float] = field(default_factory=dict)
    content: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trained_on not in LEARNT:
            raise HauberkError(
                f"images of a generator that was trained on {self.trained_on!r} cannot be used for training",
                "the generator must not have seen validation or test images: expected trained_on to be one of "
                f"{', '.join(LEARNT)}",
            )

    def plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"classes": list(self.classes)}

    def sentences(self, name: str) -> tuple[str, ...]:
        """What a reader should know of the images, whose data set has that name."""
        source = {"train": "the training split", "other": "other images", "unknown": "images that nobody has named"}
        asked = {True: "class by class", False: "without classes", None: "in a way that nobody has named"}
        said = [
            f"{name}: {self.images:,} images, {self.generator}, which has learnt from {source[self.trained_on]} "
            f"{asked[self.conditional]}; {min(self.classes):,} to {max(self.classes):,} images a class; "
            f"filter: {self.filter}."
        ]
        if self.labeller:
            right = f", which is right on {self.labeller_accuracy:.1%} of the validation images" if (
                self.labeller_accuracy is not None) else ""  # fmt: skip
            said.append(f"Their labels are those of {self.labeller}{right}.")
        said.append(
            "No classifier was asked whether it agrees with their labels."
            if self.agreement is None
            else f"{self.judge}, which has learnt from real images, agrees with {self.agreement:.1%} of their labels."
        )
        near = self.nearest
        if near:
            said.append(
                f"Of {near['looked_at']:,.0f} of them the nearest training image lies at an L2 distance of "
                f"{near['train_median']:.3g} in the middle ({near['train_least']:.3g} at least), the nearest "
                f"validation or test image at {near['held_out_median']:.3g} ({near['held_out_least']:.3g} at least); "
                f"{near['near_copies']:.0f} are near copies of one of the latter."
            )
        return tuple(said)
