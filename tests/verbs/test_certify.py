"""What a certificate takes before it is asked for: passes of an image, and what a mix may rest on."""

import pytest

from hauberk.certificates import ExpectedLogits, LipschitzCertificate, MixedCertificate, RandomVote
from hauberk.evaluation.cost import vote_count


def test_draws_are_counted_as_passes() -> None:
    """The draws that choose are those of the model and of its copy."""
    assert vote_count(RandomVote(n0=5, n=40, alpha=0.01)) == 50
    assert vote_count(ExpectedLogits(1.0, n0=3, n=100)) == 106
    assert vote_count(LipschitzCertificate()) == 0


def test_a_mix_rests_on_no_draws() -> None:
    with pytest.raises(ValueError, match="frozen_ensemble"):
        MixedCertificate(RandomVote())
