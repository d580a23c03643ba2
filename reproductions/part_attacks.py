"""Attack parts of a mix and try the points on the whole: python reproductions/part_attacks.py RUN PART..."""

from __future__ import annotations

import argparse

import hauberk
from hauberk import registry
from hauberk.attacks import APGD, PartAttack
from hauberk.cli.console import Reporter
from hauberk.recipes import Evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--threat", default="linf:8/255")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--first", action="store_true")
    options = parser.parse_args()
    threat = registry.build(options.threat, "threat")
    search = APGD(threat, loss="margin", steps=options.steps)
    attacks = [PartAttack(threat, part=part, attack=search) for part in options.parts]
    plan = Evaluation(images=options.images, choice="first" if options.first else "hashed")
    hauberk.attack(hauberk.subject(options.run), attacks, plan, report=Reporter().evaluating)


if __name__ == "__main__":
    main()
