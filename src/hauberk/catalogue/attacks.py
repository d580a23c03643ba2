"""Searches for a misclassified point inside a threat."""

from hauberk.catalogue.entry import Family

FAMILY = Family("attack")

FAMILY.add(
    "fgsm", "hauberk.attacks.fgsm:FGSM", "one step along the gradient", "Goodfellow et al. 2015", norms="L1 L2 Linf",
    knowledge="white box", cost="2 passes",
)  # fmt: skip
FAMILY.add(
    "n_fgsm", "hauberk.attacks.n_fgsm:NFGSM", "one step from strong noise, for fast training",
    "de Jorge et al. 2022, Algorithm 1", norms="Linf", knowledge="white box", cost="2 passes",
)  # fmt: skip
FAMILY.add(
    "pgd", "hauberk.attacks.pgd:PGD", "projected gradient ascent with restarts and targets", "Madry et al. 2018",
    norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "friendly_pgd", "hauberk.attacks.friendly_pgd:FriendlyPGD",
    "PGD that stops tau steps after the first error, for training", "Zhang et al. 2020, Algorithm 1",
    norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "apgd", "hauberk.attacks.apgd:APGD", "step-size-free projected gradient ascent",
    "Croce & Hein 2020, Algorithm 1; 2021 for L1", norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "fab", "hauberk.attacks.fab:FAB", "the nearest misclassified point by linearised boundaries",
    "Croce & Hein 2020 (FAB), Algorithm 1", norms="L1 L2 Linf", knowledge="white box",
    cost="up to 3 passes a step and target, K + 1 without targets",
)  # fmt: skip
FAMILY.add(
    "square", "hauberk.attacks.square:Square", "random search over squares, by scores alone",
    "Andriushchenko et al. 2020, Algorithm 1", norms="L1 L2 Linf", knowledge="scores", cost="1 pass a query",
)  # fmt: skip
FAMILY.add(
    "ddn", "hauberk.attacks.ddn:DDN", "the nearest misclassified point, direction and norm decoupled",
    "Rony et al. 2019, Algorithm 1", norms="L2", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "fmn", "hauberk.attacks.fmn:FMN", "the nearest misclassified point, with a budget that adapts",
    "Pintor et al. 2021, Algorithm 1", norms="L1 L2 Linf", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "deepfool", "hauberk.attacks.deepfool:DeepFool", "steps to the nearest linearised boundary",
    "Moosavi-Dezfooli et al. 2016, Algorithm 2", norms="L2 Linf", knowledge="white box", cost="K passes a step",
)  # fmt: skip
FAMILY.add(
    "carlini_wagner", "hauberk.attacks.carlini_wagner:CarliniWagner", "distance plus a hinge on the margin, minimised",
    "Carlini & Wagner 2017, Section V", norms="L2", knowledge="white box", cost="2 passes a step",
)  # fmt: skip
FAMILY.add(
    "transfer", "hauberk.attacks.transfer:Transfer", "points found on another model", "Papernot et al. 2016",
    norms="L1 L2 Linf", knowledge="decisions", cost="2 passes, and those of the source",
)  # fmt: skip
FAMILY.add(
    "part", "hauberk.attacks.part:PartAttack", "points found on a part of a defence, tried on the whole",
    "Bai et al. 2024, Sections 4.2 and 5.1.1", norms="L1 L2 Linf", knowledge="white box",
    cost="5 passes, and those of the part",
)  # fmt: skip
FAMILY.add(
    "autoattack", "hauberk.attacks.autoattack:AutoAttack",
    "an ensemble of attacks on survivors: fast, standard, plus, rand or custom", "Croce & Hein 2020, Section 5",
    norms="L1 L2 Linf", knowledge="white box", cost="standard about 11,000 passes, fast 2,000",
)  # fmt: skip
FAMILY.add(
    "eot", "hauberk.attacks.eot:EOT", "a search on a random model with a stated number of draws and kind of mean",
    "Athalye et al. 2018, Section 4.2", norms="L1 L2 Linf", knowledge="white box",
    cost="those of the attack inside, times the draws",
)  # fmt: skip
FAMILY.add(
    "eot_sweep", "hauberk.attacks.eot_sweep:EOTSweep",
    "EOT with ever more draws and steps, until the accuracy of a random model stops falling",
    "Athalye et al. 2018, Section 4.2", norms="L1 L2 Linf", knowledge="white box",
    cost="up to 57,000 passes; its rounds of 1, 5 and 20 draws 9,200",
)  # fmt: skip
FAMILY.add(
    "on_grid", "hauberk.attacks.on_grid:OnGrid", "points rounded to whole 8-bit or 16-bit levels and judged again",
    norms="L1 L2 Linf", knowledge="white box", cost="9 passes, and those of the attack inside",
)  # fmt: skip
FAMILY.add(
    "towards", "hauberk.attacks.towards:Towards", "an attack that wants one chosen class to win",
    "Carlini & Wagner 2017, Section III", norms="L1 L2 Linf", knowledge="white box",
    cost="2 passes, and those of the attack inside",
)  # fmt: skip
