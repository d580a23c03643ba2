#!/usr/bin/env bash
# Everything under results/, from committed recipes: about 50 minutes on two cores.  Every step resumes.
# Needs CIFAR-10 in ./data (see docs/data.md) and an idle machine, since the minutes are recorded.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk
runs=runs/small_cifar10

$hauberk sweep recipes/tables/small_cifar10.yaml -o $runs
pgd=$runs/pgd_cifar10_small-seed0 standard=$runs/standard_cifar10_small-seed0 lip=$runs/lip_cifar10_small-seed0

# the adversarially trained net has no Lipschitz bound: certify its smoothed version
$hauberk certify $pgd --method smoothing --sigma 0.12 --n 1000 --images 200

# the mix with an empirical robust half, attacked; and the mix with a certified one
$hauberk mix --accurate $standard --robust $pgd --alpha 0.7 -o $runs/mix_standard_pgd --images 1000
$hauberk attack $runs/mix_standard_pgd --threat linf:8/255 --attack apgd,steps=50 --images 1000
$hauberk mix --accurate $standard --robust $lip --alpha 0.8 --robust-scale 8 -o $runs/mix_standard_lip --images 1000
$hauberk attack $runs/mix_standard_lip --threat l2:36/255 --attack apgd,steps=30 --images 1000
$hauberk certify $runs/mix_standard_lip --images 1000

for name in pgd_cifar10_small-seed0 standard_cifar10_small-seed0 lip_cifar10_small-seed0 mix_standard_pgd mix_standard_lip; do
  $hauberk verify $runs/$name --weights
  rm -rf results/cifar10/$name
  $hauberk bundle $runs/$name -o results/cifar10/$name
  $hauberk verify results/cifar10/$name
done
cp $runs/table.md results/cifar10/table.md
$hauberk report results/cifar10/*/ -o $runs/report.html
