#!/usr/bin/env bash
# Four ways to train for a certified radius at an equal budget of noisy images: results/smoothing, about three hours on
# one core.  Needs CIFAR-10 (docs/data.md).  Every step resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk runs=runs/smoothing_cifar10

$hauberk sweep recipes/tables/smoothing_cifar10.yaml -o $runs
for run in $runs/*-seed*; do
  $hauberk verify $run --weights
  rm -rf results/smoothing/$(basename $run)
  $hauberk bundle $run -o results/smoothing/$(basename $run)
done
.venv/bin/python reproductions/smoothing_training.py
