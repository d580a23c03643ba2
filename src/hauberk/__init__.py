"""Hauberk: train, attack, certify, mix and report image classifiers that must hold up against an adversary.

The verbs of the command line are functions here: ``hauberk.train``, ``attack``, ``certify``, ``mix``, ``write_report``;
every part is importable by itself and works on any ``nn.Module`` that takes images in [0, 1] and gives logits.
"""

# nothing is imported here: python -m hauberk reads this file while the current folder comes first on the path
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "train": "hauberk.verbs.train:train",
    "evaluate": "hauberk.verbs.evaluate:evaluate",
    "attack": "hauberk.verbs.attack:attack",
    "suite": "hauberk.verbs.attack:suite",
    "diagnose": "hauberk.verbs.attack:diagnose",
    "certify": "hauberk.verbs.certify:certify",
    "default_certificate": "hauberk.verbs.certify:default_certificate",
    "check": "hauberk.verbs.check:check",
    "lipschitz": "hauberk.verbs.lipschitz:lipschitz",
    "compare": "hauberk.comparison:compare",
    "mix": "hauberk.verbs.mix:mix",
    "subject": "hauberk.subjects:subject",
    "evaluation_samples": "hauberk.verbs.samples:evaluation_samples",
    "evaluation_batch": "hauberk.verbs.samples:evaluation_batch",
    "probe_batch": "hauberk.verbs.samples:probe_batch",
    "write_report": "hauberk.report:write_report",
    "read_recipe": "hauberk.recipes:read",
    "build": "hauberk.registry:build",
    "spec": "hauberk.registry:spec",
}




def __getattr__(name: str) -> "Any":
    """Load a verb on first use, so that ``import hauberk`` stays light."""
    import importlib

    if name not in _VERBS:
        raise AttributeError(f"module 'hauberk' has no attribute {name!r}")
    module, attribute = _VERBS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
