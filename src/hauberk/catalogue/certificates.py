"""Proofs that there is none within a radius, and estimates."""

from hauberk.catalogue.entry import Family

FAMILY = Family("certificate")

FAMILY.add(
    "lipschitz", "hauberk.certificates.lipschitz:LipschitzCertificate",
    "logit margin over the pairwise Lipschitz bound", "Tsuzuku et al. 2018; Singla et al. 2022, Prop. 1",
    norm="L1 L2 Linf", proof="deterministic",
)  # fmt: skip
FAMILY.add(
    "top_k", "hauberk.certificates.class_sets:TopK",
    "the set of the k largest logits stays what it is", "Leino & Fredrikson 2021",
    norm="L1 L2 Linf", proof="deterministic",
)  # fmt: skip
FAMILY.add(
    "affinity", "hauberk.certificates.class_sets:Affinity",
    "a set of the largest logits stays what it is, inside a declared set", "Leino & Fredrikson 2021",
    norm="L1 L2 Linf", proof="deterministic",
)  # fmt: skip
FAMILY.add(
    "smoothing", "hauberk.certificates.smoothing:SmoothingCertificate",
    "the radius of its noise from a Clopper-Pearson bound of the votes", "Cohen et al. 2019, Theorem 1",
    short={"sigma": ("noise", "gaussian")}, norm="that of the noise",
    proof="probabilistic",
)  # fmt: skip
FAMILY.add(
    "derandomised_splitting", "hauberk.certificates.derandomised:DerandomisedSplitting",
    "half the lead in votes over all splits of an image of 8 bits", "Levine & Feizi 2021, Theorem 2",
    norm="that of the attacker", proof="deterministic",
)  # fmt: skip
FAMILY.add(
    "random_vote", "hauberk.certificates.random_vote:RandomVote",
    "the vote over a random model's draws: an order statistic of their margins",
    norm="L1 L2 Linf", proof="probabilistic",
)  # fmt: skip
FAMILY.add(
    "expected_logits", "hauberk.certificates.expected_logits:ExpectedLogits",
    "the mean clamped logits over a random model's draws, by empirical Bernstein", "Maurer & Pontil 2009",
    norm="L1 L2 Linf", proof="probabilistic",
)  # fmt: skip
FAMILY.add(
    "mmcert", "hauberk.certificates.multimodal:MMCert",
    "how many elements of every modality may change before the vote over sub-samples does",
    "Wang et al. 2024, corrected",
    norm="elements", proof="probabilistic",
)  # fmt: skip
FAMILY.add(
    "local_lipschitz", "hauberk.certificates.local_lipschitz:LocalLipschitz",
    "the margin of the probabilities at the worst points that APGD finds", "Bai et al. 2024, Eq. 12, corrected",
    norm="that of the threat", proof="estimate",
)  # fmt: skip
FAMILY.add(
    "mixed_margin", "hauberk.certificates.mixed:MixedCertificate",
    "the robust model keeps the margin (1 - alpha) / alpha in the ball", "Bai et al. 2024, Lemma 3.2",
    norm="that of the base", proof="that of the base",
)  # fmt: skip
