"""Attacks: searches for a misclassified point inside a threat, one a file."""

from hauberk.attacks.apgd import APGD
from hauberk.attacks.base import Attack, AttackResult
from hauberk.attacks.fgsm import FGSM
from hauberk.attacks.losses import AttackLoss
from hauberk.attacks.pgd import PGD
from hauberk.attacks.query import Query

__all__ = ["APGD", "FGSM", "PGD", "Attack", "AttackLoss", "AttackResult", "Query"]
