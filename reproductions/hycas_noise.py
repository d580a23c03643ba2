"""What training left of the parts of HyCAS nets: shares of the gates, strength of the masks, and what the noise does.

    python reproductions/hycas_noise.py results/hycas/pneumonia runs/hycas_pneumonia/hycas_0.25-seed0 ...

Writes noise.json into the folder: it needs weights, which bundles have not.  The noise's share of the output is
``evaluation.random_checks.noise_share`` over 20 draws and the first 100 test images; below 5 % a net is called
deterministic.  The factor of a mask is its mean over channels, layers and the clipped normal law.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hauberk import registry
from hauberk.draws import drawn, draws_by_key
from hauberk.evaluation.random_checks import DRAWS, LITTLE, noise_share
from hauberk.layers.attention_noise import AttentionNoise
from hauberk.layers.draw_mean import DrawMean
from hauberk.layers.hycas import HyCASSettings
from hauberk.models.hycas_net import gate_shares
from hauberk.randomness import Key
from hauberk.runs import Run

IMAGES = 100
NORMAL = 1001  # equal parts of the normal law over which a mask is averaged


@torch.no_grad()
def facts(run: Run) -> dict[str, Any] | None:
    """Of one run; None where its net has no gate and no noise."""
    model = run.load_model().eval()
    streams = run.recipe["model"].get("streams", list(HyCASSettings().streams))
    gates = list(gate_shares(model).values())
    children = list(model.children())  # of a frozen ensemble, the mean of a body and the head after it
    random = nn.Sequential(*(part.body if isinstance(part, DrawMean) else part for part in children))
    if not gates and not draws_by_key(random):
        return None
    shares = {
        name: round(sum(gate[str(number)] for gate in gates) / len(gates), 4)
        for number, name in enumerate(streams if gates else ())
    }
    found: dict[str, Any] = {"gate": shares, "factor": _factor(model), "noise_share": 0.0}
    if draws_by_key(random):
        images = registry.build(run.recipe["data"], "dataset").test.batch(slice(IMAGES)).images
        ids = tuple(range(len(images)))
        logits = [drawn(random, Key(0, number, ids, "noise share"))(images) for number in range(DRAWS)]
        found["noise_share"] = round(noise_share(torch.stack(logits)), 4)
    return found | {"deterministic": found["noise_share"] < LITTLE}


def _factor(model: nn.Module) -> float | None:
    """The mean factor of the masks."""
    masks = [module for module in model.modules() if isinstance(module, AttentionNoise)]
    if not masks:
        return None
    normal = torch.special.ndtri((torch.arange(NORMAL) + 0.5) / NORMAL)
    kept = []
    for mask in masks:
        values = (mask.logits.sigmoid()[:, None] + mask.tau * normal).clamp(0.0, 1.0).mean()
        size = {"mask": values, "halved": 1.0 - mask.strength * (1.0 - values), "full": 1.0 + values}
        kept.append(float(size[mask.mode]))
    return round(sum(kept) / len(kept), 4)


def main() -> None:
    """Write the file, keeping what other runs left in it."""
    path = Path(sys.argv[1]) / "noise.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in map(Path, sys.argv[2:]):
        found = facts(Run.open(name))
        if found is not None:
            known[name.name] = found
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
