"""What training minimises."""

from hauberk.catalogue.entry import Family

FAMILY = Family("objective")

FAMILY.add("standard", "hauberk.objectives.standard:Standard", "cross-entropy on clean images")
FAMILY.add(
    "gaussian_augmentation", "hauberk.objectives.gaussian_augmentation:GaussianAugmentation",
    "cross-entropy under noise", "Cohen et al. 2019, Section 3.3", short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "noisy_adversarial", "hauberk.objectives.noisy_adversarial:NoisyAdversarial",
    "cross-entropy under noise and under attack, and of each stream alone", "Dhar et al. 2026",
    short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "smooth_adv", "hauberk.objectives.smooth_adv:SmoothAdv", "cross-entropy under noise around attacked images",
    "Salman et al. 2019", short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "macer", "hauberk.objectives.macer:MACER", "cross-entropy and certified radius of the soft smoothed classifier",
    "Zhai et al. 2020, Algorithm 1", short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "smoothed_consistency", "hauberk.objectives.smoothed_consistency:SmoothedConsistency",
    "cross-entropy under noise, plus how far noisy copies are from their mean", "Jeong & Shin 2020",
    short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "stability", "hauberk.objectives.stability:Stability", "outputs under noise are those without it",
    "Zheng et al. 2016; Li et al. 2019", short={"sigma": ("noise", "gaussian")},
)  # fmt: skip
FAMILY.add(
    "diffusion", "hauberk.objectives.diffusion:Diffusion", "a diffusion model finds the noise in noisy images",
    "Ho et al. 2020, Eq. 14",
)  # fmt: skip
FAMILY.add(
    "denoising", "hauberk.objectives.denoising:Denoising",
    "a denoiser before a frozen classifier: squared error, and the classifier's answers", "Salman et al. 2020, Eq. 4-5",
)  # fmt: skip
FAMILY.add(
    "guided_denoising", "hauberk.objectives.guided_denoising:GuidedDenoising",
    "a denoiser against attacks, guided by pixels, features, logits or classes of a frozen classifier",
    "Liao et al. 2018, Eq. 5-8",
)  # fmt: skip
FAMILY.add(
    "pgd_adversarial", "hauberk.objectives.pgd_adversarial:PGDAdversarial", "cross-entropy on attacked images",
    "Madry et al. 2018, Eq. 2.1",
)  # fmt: skip
FAMILY.add(
    "friendly_adversarial", "hauberk.objectives.friendly_adversarial:FriendlyAdversarial",
    "an objective whose attack stops soon after the first error, and later as training goes on",
    "Zhang et al. 2020, Algorithm 2",
)  # fmt: skip
FAMILY.add(
    "customised_adversarial", "hauberk.objectives.customised_adversarial:CustomisedAdversarial",
    "cross-entropy on attacked images, with a budget of each sample and labels as soft as it is large",
    "Cheng et al. 2020, Algorithm 1",
)  # fmt: skip
FAMILY.add(
    "epochwise_adversarial", "hauberk.objectives.epochwise_adversarial:EpochwiseAdversarial",
    "cross-entropy on clean images and images that are attacked every few epochs",
)  # fmt: skip
FAMILY.add(
    "trades", "hauberk.objectives.trades:TRADES",
    "clean cross-entropy plus beta times the divergence to the attacked output", "Zhang et al. 2019, Eq. 3",
)  # fmt: skip
FAMILY.add(
    "detector", "hauberk.objectives.detector:Detector",
    "binary cross-entropy of a detector head on clean and attacked images", "Metzen et al. 2017, Section 3.2",
)  # fmt: skip
FAMILY.add(
    "adaptive_smoothing", "hauberk.objectives.adaptive_smoothing:AdaptiveSmoothing",
    "a mixing network learns clean from attacked images", "Bai et al. 2024, Eq. 8",
)  # fmt: skip
FAMILY.add(
    "iaat", "hauberk.objectives.iaat:IAAT", "cross-entropy on attacked images, each within a budget of its own",
    "Balaji et al. 2019, Algorithm 2",
)  # fmt: skip
FAMILY.add(
    "certificate_regularisation", "hauberk.objectives.certificate_regularisation:CertificateRegularisation",
    "cross-entropy less the certified radius", "Singla et al. 2022",
)  # fmt: skip
FAMILY.add(
    "gloro", "hauberk.objectives.gloro:GloRo",
    "cross-entropy with a logit for 'not robust'; TRADES, top-k and affinity forms",
    "Leino et al. 2021; Leino & Fredrikson 2021",
)  # fmt: skip
FAMILY.add(
    "emma", "hauberk.objectives.emma:EMMA", "worst-case logit differences, each within a radius of its own",
    "Hu et al. 2023",
)  # fmt: skip
FAMILY.add(
    "semidefinite_dual", "hauberk.objectives.semidefinite_dual:SemidefiniteDual",
    "cross-entropy plus the semidefinite dual bounds of a net of one hidden layer",
    "Raghunathan et al. 2018, Section 4",
)  # fmt: skip
FAMILY.add(
    "logit_annealing", "hauberk.objectives.logit_annealing:LogitAnnealing", "a margin loss whose reward fades",
    "Lai et al. 2025",
)  # fmt: skip
FAMILY.add(
    "hkr", "hauberk.objectives.hkr:HKR", "hinge loss less the transport distance of the classes",
    "Serrurier et al. 2021",
)  # fmt: skip
FAMILY.add(
    "consistency", "hauberk.objectives.consistency:Consistency",
    "cross-entropy on two attacked views, and their divergence", "Tack et al. 2022",
)  # fmt: skip
FAMILY.add(
    "ard", "hauberk.objectives.ard:ARD", "the attacked output is drawn to a robust teacher's clean one",
    "Goldblum et al. 2020",
)  # fmt: skip
FAMILY.add(
    "free_adversarial", "hauberk.objectives.free_adversarial:FreeAdversarial",
    "cross-entropy whose backward pass also moves the perturbation, several steps on a batch",
    "Shafahi et al. 2019, Algorithm 1",
)  # fmt: skip
FAMILY.add("terms", "hauberk.objectives.terms:Terms", "a base loss plus any number of regularisers", "lecture")
FAMILY.add(
    "curvature", "hauberk.objectives.curvature:Curvature",
    "a regulariser: how much the slope of the loss changes along one direction",
    "Moosavi-Dezfooli et al. 2019, Eq. 5",
)  # fmt: skip
FAMILY.add(
    "attacked_divergence", "hauberk.objectives.attacked_divergence:AttackedDivergence",
    "a regulariser: how far the output moves under attack, as in TRADES", "Zhang et al. 2019, Eq. 5",
)  # fmt: skip
FAMILY.add(
    "view_divergence", "hauberk.objectives.view_divergence:ViewDivergence",
    "a regulariser: how far two attacked views are told apart", "Tack et al. 2022",
)  # fmt: skip
FAMILY.add(
    "triplet", "hauberk.objectives.triplet:Triplet",
    "a regulariser: attacked features near their image and far from other classes, as in TLA", "Mao et al. 2019",
)  # fmt: skip
FAMILY.add(
    "distillation", "hauberk.objectives.distillation:Distillation",
    "a regulariser: the attacked output is drawn to a teacher's at the same point, as in PLS", "Chen et al. 2021",
)  # fmt: skip
FAMILY.add(
    "mart", "hauberk.objectives.mart:MART", "adversarial training that looks harder at images that are wrong",
    "Wang et al. 2020, Eq. 8-11",
)  # fmt: skip
FAMILY.add(
    "cutmix", "hauberk.objectives.cutmix:CutMix", "another objective on images with a box of another image",
    "Yun et al. 2019; Rebuffi et al. 2021",
)  # fmt: skip
FAMILY.add(
    "alp", "hauberk.objectives.alp:ALP",
    "adversarial training whose attacked logits stay near the clean ones; its first reported robustness was broken",
    "Kannan et al. 2018",
)  # fmt: skip
