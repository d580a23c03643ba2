"""What an attack maximises on a model that has more to tell than logits."""

from hauberk.catalogue.entry import Family

FAMILY = Family("loss")

FAMILY.add(
    "detector_joint", "hauberk.defences.detector:DetectorJoint", "fool the classifier and its detector at once",
    "Metzen et al. 2017, Section 3.3",
)  # fmt: skip
FAMILY.add(
    "bottom_margin", "hauberk.defences.bottom_class:BottomMargin", "be decided by a bottom class as another class",
)  # fmt: skip
FAMILY.add(
    "alpha_down", "hauberk.defences.adaptive_mixed:AlphaDown",
    "fool an adaptive mix and push its robust model's weight down", "Bai et al. 2024, Section 4.2",
)  # fmt: skip
