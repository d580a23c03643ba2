"""Attacks: searches for a misclassified point inside a threat, one a file."""

from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack, AttackResult, Query
from hauberk.attacks.fgsm import FGSM
from hauberk.attacks.pgd import PGD

__all__ = ["APGD", "FGSM", "PGD", "Attack", "AttackResult", "Query"]
