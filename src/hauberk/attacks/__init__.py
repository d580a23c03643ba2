"""Attacks: searches for a misclassified point inside a threat, one attack in each file."""

from hauberk.attacks.apgd import APGD
from hauberk.attacks.autoattack import AutoAttack
from hauberk.attacks.base import Attack, AttackResult
from hauberk.attacks.carlini_wagner import CarliniWagner
from hauberk.attacks.ddn import DDN
from hauberk.attacks.deepfool import DeepFool
from hauberk.attacks.eot import EOT
from hauberk.attacks.eot_sweep import EOTSweep
from hauberk.attacks.fab import FAB
from hauberk.attacks.fgsm import FGSM
from hauberk.attacks.fmn import FMN
from hauberk.attacks.friendly_pgd import FriendlyPGD
from hauberk.attacks.gradients import BPDA
from hauberk.attacks.losses import AttackLoss
from hauberk.attacks.n_fgsm import NFGSM
from hauberk.attacks.on_grid import OnGrid
from hauberk.attacks.part import PartAttack
from hauberk.attacks.pgd import PGD
from hauberk.attacks.query import Query
from hauberk.attacks.square import Square
from hauberk.attacks.towards import Towards
from hauberk.attacks.transfer import Transfer

__all__ = [
    "APGD", "BPDA", "DDN", "EOT", "FAB", "FGSM", "FMN", "NFGSM", "PGD", "Attack", "AttackLoss", "AttackResult",
    "AutoAttack", "CarliniWagner", "DeepFool", "EOTSweep", "FriendlyPGD", "OnGrid", "PartAttack", "Query", "Square",
    "Towards", "Transfer",
]  # fmt: skip
