"""The alpha path of a mix: for every image, the weights at which the mix is right, and from which it is certified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hauberk import registry
from hauberk.batch import Batch, Samples
from hauberk.certificates import MixedCertificate
from hauberk.certificates.evidence import on_record
from hauberk.certificates.mixed import needed_alpha
from hauberk.classifier import check_eval, frozen, logits_of, predictor_name
from hauberk.defences import MixedClassifier
from hauberk.errors import HauberkError
from hauberk.evaluation.alpha_steps import right_where_finite
from hauberk.evaluation.keys import Setting, facts_of, revisions, unit_of
from hauberk.evaluation.work import Columns, Task, Work, done
from hauberk.records import Part, RecordKind

PATH_VERSION = 1  # of the code that finds the alpha path


@dataclass(frozen=True, kw_only=True)
class Mixing(Task):
    """Units of an alpha path: one tile.

    Args:
        certificate: of the mix; None where nothing is proved of the robust model.
        radii: where certified accuracy is wanted.
    """

    model: MixedClassifier
    certificate: MixedCertificate | None
    radii: tuple[float, ...]

    kind: ClassVar[RecordKind] = "mix"

    def rows(self, images: Batch, stage: int) -> tuple[Columns, dict[str, Any]]:  # noqa: ARG002
        """Logits of both models and the interval of alpha; the certificate's evidence."""
        columns = _path_columns(self.model, images, self.setting)
        if self.certificate is None:
            return columns, {"shared": {}}
        kept, shared = _kept_columns(self.model, images, self.certificate, self.radii, self.setting)
        return columns | kept, {"shared": shared}


def mix_records(
    model: MixedClassifier,
    samples: Samples,
    certificate: MixedCertificate | None,
    radii: Sequence[float],
    setting: Setting,
    work: Work,
) -> list[Part]:
    r"""For every image, the weights alpha at which the mix is right, and from which it is certified.

    The mix's probability is linear in alpha, so it is right on one open interval:
    :math:`(1-\alpha)(g_y - g_j) + \alpha(h_y - h_j) > 0` for all j.  It is certified at radius r from
    :math:`\alpha = 1/(1 + m(r))` upwards, with m the margin that the robust model keeps (Bai et al. 2024, Lemma 3.2).

    Args:
        model: the mix; its own alpha does not matter here.
        samples: all images of the evaluation.
        certificate: of the mix; None where nothing is proved of the robust model.
        radii: where certified accuracy is wanted.
        setting: names, seed and tile.
        work: where the records go, and which share to do.

    Raises:
        HauberkError: if the certificate is not deterministic: with a vote for a base, the mix that is certified takes
            exact vote probabilities, and no path of measured ones belongs to it.
    """
    if certificate is not None and certificate.kind != "deterministic":
        raise HauberkError(
            "the alpha path needs a deterministic certificate of the robust model",
            "certify at one alpha instead: hauberk certify MIX --method mixed_margin",
        )
    check_eval(model)
    proved = () if certificate is None else tuple(radii)
    method = {"name": "alpha_path"} if certificate is None else registry.spec(certificate)
    about = unit_of(model, predictor_name(model), method, setting)
    about |= {"radii": list(proved), "revisions": revisions(certificate) | {"alpha_path": PATH_VERSION}}
    facts = facts_of(samples, setting) | {
        "norm": "" if certificate is None else certificate.norm,
        "proof": "none" if certificate is None else certificate.kind,
        "alpha": model.alpha,
        "eps": list(proved),
        "accurate": predictor_name(model.accurate),
        "robust": predictor_name(model.robust),
    }
    task = Mixing(
        model=model, setting=setting, about=about, facts=facts, certificate=certificate, radii=proved
    )
    return done(task, samples, work)


def _path_columns(model: MixedClassifier, tile: Batch, setting: Setting) -> Columns:
    with frozen(model):
        accurate = model.accurate_scale * logits_of(model.accurate, tile, setting.tile)
        robust = model.robust_scale * logits_of(model.robust, tile, setting.tile)
    g, h = (z.double().softmax(1).cpu().numpy() for z in (accurate, robust))
    low, high = right_where_finite(g, h, tile.labels.cpu().numpy())
    return {
        "id": tile.ids.tolist(),
        "label": tile.labels.tolist(),
        "accurate_prediction": accurate.argmax(1).tolist(),
        "robust_prediction": robust.argmax(1).tolist(),
        "accurate_logits": accurate.float().tolist(),
        "robust_logits": robust.float().tolist(),
        "alpha_low": low.tolist(),
        "alpha_high": high.tolist(),
        "certified_alpha": [[] for _ in low],
    }


def _kept_columns(
    model: MixedClassifier, tile: Batch, certificate: MixedCertificate, radii: Sequence[float], setting: Setting
) -> tuple[Columns, dict[str, Any]]:
    # not frozen, because a certificate computes the weights again in float64 and must not meet those kept in float32
    evidence = certificate.gather(model, tile, setting.seed, setting.tile)
    base = certificate.base
    certified = [
        [needed_alpha(base.margin(seen.base, r)) if right else float("nan") for r in radii]
        for seen, y in zip(evidence, tile.labels.tolist(), strict=True)
        for right in [base.decision(seen.base) == y and not certificate.contradicted(seen)]
    ]
    rows, shared = on_record(evidence)
    return {"certified_alpha": certified, "evidence": [json.dumps(row) for row in rows]}, shared
