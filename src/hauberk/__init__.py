"""Hauberk: train, attack, certify, mix and report image classifiers that must hold up against an adversary."""

__version__ = "0.1.0"
