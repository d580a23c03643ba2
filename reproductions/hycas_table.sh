#!/usr/bin/env bash
# HyCAS and what it is compared with on PneumoniaMNIST: results/hycas/pneumonia, some hours on one core.  Needs
# pneumoniamnist.npz in $HAUBERK_DATA (docs/data.md, reproductions/image_sets.py).  Every step resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk

for table in hycas_pneumonia hycas_pneumonia_parts hycas_pneumonia_noise; do
  runs=runs/$table
  $hauberk sweep recipes/tables/$table.yaml -o $runs
  for run in $runs/*-seed*; do
    $hauberk verify $run --weights
    rm -rf results/hycas/pneumonia/$(basename $run)
    $hauberk bundle $run -o results/hycas/pneumonia/$(basename $run)
  done
done
.venv/bin/python reproductions/predictor_table.py results/hycas/pneumonia
