"""Conformance suites: run them on a part of your own; each returns None or names the rule that the part breaks.

The truth comes from ``LinearOracle``, a classifier whose robust radius is known in closed form in every norm, so an
attack that succeeds too early and a certificate that promises too much are both found out.
"""

from hauberk.conformance.attack import check_attack
from hauberk.conformance.certificate import check_certificate
from hauberk.conformance.classifier import check_classifier
from hauberk.conformance.layer import check_lipschitz_layer
from hauberk.conformance.noise import check_noise
from hauberk.conformance.objective import check_objective
from hauberk.conformance.oracle import LinearOracle

__all__ = [
    "LinearOracle",
    "check_attack",
    "check_certificate",
    "check_classifier",
    "check_lipschitz_layer",
    "check_noise",
    "check_objective",
]
