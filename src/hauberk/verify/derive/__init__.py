"""A second derivation of class and radius from evidence, which shares no code with the certificates.

Each kind of evidence has one file, which computes with numpy and scipy alone.
"""

from hauberk.verify.derive.draws import expected_logits as expected_logits
from hauberk.verify.derive.draws import random_vote as random_vote
from hauberk.verify.derive.edits import edits as edits
from hauberk.verify.derive.edits import elements_of as elements_of
from hauberk.verify.derive.logits import kept_margin as kept_margin
from hauberk.verify.derive.logits import kept_margins as kept_margins
from hauberk.verify.derive.logits import lipschitz as lipschitz
from hauberk.verify.derive.mixes import mixed_margin as mixed_margin
from hauberk.verify.derive.points import local_lipschitz as local_lipschitz
from hauberk.verify.derive.sets import affinity as affinity
from hauberk.verify.derive.sets import top_k as top_k
from hauberk.verify.derive.splits import split_problems as split_problems
from hauberk.verify.derive.splits import splits as splits
from hauberk.verify.derive.votes import noise_of as noise_of
from hauberk.verify.derive.votes import norm_of as norm_of
from hauberk.verify.derive.votes import smoothing as smoothing

DERIVE = {
    "lipschitz": lipschitz,
    "top_k": top_k,
    "affinity": affinity,
    "smoothing": smoothing,
    "derandomised_splitting": splits,
    "random_vote": random_vote,
    "expected_logits": expected_logits,
    "mmcert": edits,
    "local_lipschitz": local_lipschitz,
    "mixed_margin": mixed_margin,
}
