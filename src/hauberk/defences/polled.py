"""A random classifier with a stated rule by which fresh draws become its decision."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from hauberk import registry
from hauberk.capabilities import Decides, NamesItself, Poll, Polled
from hauberk.classifier import predictor_name, traits
from hauberk.errors import HauberkError
from hauberk.models.building import with_spec
from hauberk.specs import Rows


class PolledClassifier(nn.Module, Polled, NamesItself):
    r"""The answer of one draw, the majority of N draws, or the class of the mean logits of N draws.

    .. math::
        f(x; \omega), \qquad \arg\max_c \#\{t : f(x; \omega_t) = c\}, \qquad
        \arg\max_c \sum_t f_c(x; \omega_t)

    The predictor is random too: a second call may give another answer. It is attacked and judged by its own rule, and
    records name it by that rule.  The mean over fixed public draws is ``frozen_ensemble``.

    Args:
        base: the random classifier, whose single draw ``forward`` is.
        poll: the rule.
    """

    def __init__(self, base: nn.Module, poll: Poll) -> None:
        super().__init__()
        self.base, self.poll = base, poll

    @property
    def predictor(self) -> str:
        """How records call it."""
        rule = "mean_logits" if self.poll.rule == "mean" else "majority" if self.poll.draws > 1 else "single_draw"
        told = f"draws={self.poll.draws}, " if self.poll.draws > 1 else ""
        return f"{rule}({told}{predictor_name(self.base)})"

    def forward(self, images: Tensor) -> Tensor:
        """Logits of one draw, shape (B, C, H, W) to (B, K)."""
        logits: Tensor = self.base(images)
        return logits


def polled(base: nn.Module, rule: Literal["single", "vote", "mean"] = "vote", draws: Rows = 20) -> nn.Module:
    """Build a random classifier with a stated rule.

    Args:
        base: a built model, or in a spec its description.
        rule: ``single`` is the answer of one draw, ``vote`` the majority of the draws, ``mean`` the class of their
            mean logits.
        draws: how many; not used by ``single``.

    Raises:
        HauberkError: if the base is known not to be random, or has a decision rule of its own.
    """
    known = traits(base)
    if isinstance(base, Decides):
        raise HauberkError(f"{type(base).__name__} has a decision rule of its own", "poll the network inside it")
    if known.declared and not known.stochastic:
        raise HauberkError(
            f"{type(base).__name__} is not random, so that all its votes would agree", "use it without a poll"
        )
    poll = Poll("mean", draws) if rule == "mean" else Poll("vote", 1 if rule == "single" else draws)
    made = PolledClassifier(base, poll).train(base.training)
    return with_spec(made, "polled", base=registry.spec(base), rule=rule, draws=draws)
