#!/usr/bin/env bash
# HyCAS and what it is compared with, on the data sets that are named: pneumonia, ham10000, cifar10, cifar100 (all without
# an argument).  Writes results/hycas/NAME; some hours on one core each.  Needs the data in $HAUBERK_DATA (docs/data.md,
# reproductions/image_sets.py).  Every step resumes, and runs that are there already are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk

for name in ${@:-pneumonia ham10000 cifar10 cifar100}; do
  for table in recipes/tables/hycas_${name}{,_parts,_noise}.yaml; do
    test -f $table || continue
    $hauberk sweep $table -o runs/hycas_$name
  done
  for run in runs/hycas_$name/*-seed*; do
    $hauberk verify $run --weights
    rm -rf results/hycas/$name/$(basename $run)
    $hauberk bundle $run -o results/hycas/$name/$(basename $run)
  done
  .venv/bin/python reproductions/hycas_noise.py results/hycas/$name runs/hycas_$name/*-seed*
  .venv/bin/python reproductions/predictor_table.py results/hycas/$name
done
