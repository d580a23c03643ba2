#!/usr/bin/env bash
# Attacks for random models on three HyCAS nets.  Writes results/hycas_attacks; about 20 minutes on one core.  Needs the
# data in $HAUBERK_DATA (docs/data.md, reproductions/image_sets.py).  Every step resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk

$hauberk sweep recipes/tables/hycas_attacks.yaml -o runs/hycas_attacks
for run in runs/hycas_attacks/*-seed*; do
  rm -rf results/hycas_attacks/$(basename $run)
  $hauberk bundle $run -o results/hycas_attacks/$(basename $run)
done
.venv/bin/python reproductions/random_attacks.py results/hycas_attacks
