"""Certificates: proofs that there is no adversarial point within a radius."""

from hauberk.certificates.base import Certificate, Certificates
from hauberk.certificates.class_sets import Affinity, TopK
from hauberk.certificates.derandomised import DerandomisedSplitting
from hauberk.certificates.expected_logits import ExpectedLogits
from hauberk.certificates.frozen import FrozenLipschitz, freeze, lipschitz_radii
from hauberk.certificates.lipschitz import LipschitzCertificate
from hauberk.certificates.local_lipschitz import LocalLipschitz
from hauberk.certificates.mixed import MixedCertificate
from hauberk.certificates.multimodal import MMCert
from hauberk.certificates.random_vote import RandomVote
from hauberk.certificates.smoothing import SmoothingCertificate
from hauberk.certificates.top_k import (
    affinity_radius,
    relaxed_guarantees,
    relaxed_top_k_radius,
    stays_in_top_k,
    top_k_radii,
    top_k_radius,
)
from hauberk.classifier import ABSTAIN

__all__ = [
    "ABSTAIN",
    "Affinity",
    "Certificate",
    "Certificates",
    "DerandomisedSplitting",
    "ExpectedLogits",
    "FrozenLipschitz",
    "LipschitzCertificate",
    "LocalLipschitz",
    "MMCert",
    "MixedCertificate",
    "RandomVote",
    "SmoothingCertificate",
    "TopK",
    "affinity_radius",
    "freeze",
    "lipschitz_radii",
    "relaxed_guarantees",
    "relaxed_top_k_radius",
    "stays_in_top_k",
    "top_k_radii",
    "top_k_radius",
]
