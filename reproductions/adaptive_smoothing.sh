#!/usr/bin/env bash
# Mixes of the small standard and the small adversarially trained net: results/adaptive_smoothing/small, from committed
# recipes, about two hours on one core.  Every step resumes.  Needs benchmarks/results.sh first; nothing is chosen on
# test images: MixedNUTS and the network's range are calibrated on the validation split.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk
runs=runs/small_cifar10
standard=$runs/standard_cifar10_small-seed0 pgd=$runs/pgd_cifar10_small-seed0
threat=linf:8/255
# cross-entropy, and the targeted difference of logits towards the three likeliest wrong classes
suite=(--threat $threat --attack apgd,steps=50 --attack apgd,steps=50,loss=dlr,targets=3 --images 1000)

# one weight for all images: the curve between the base models
for alpha in 0.5 0.6 0.7 0.8 0.9 0.95; do
  mix=$runs/mix_alpha_$alpha
  $hauberk mix --accurate $standard --robust $pgd --alpha $alpha --images 1000 -o $mix
  $hauberk attack $mix "${suite[@]}"
done

# MixedNUTS, for 93 % of what the robust model keeps on validation images
nuts=$runs/mix_nuts
$hauberk mix --accurate $standard --robust $pgd --choose nuts --keep 93% --threat $threat -o $nuts
$hauberk attack $nuts "${suite[@]}"
.venv/bin/python reproductions/part_attacks.py $nuts surrogate robust accurate

# the mixing network; its range leads to the clean accuracy that MixedNUTS promised on validation images
$hauberk train mixing_cifar10_small -o $runs/mixing_cifar10_small-seed0
for width in 0.5 0.1; do
  network=$runs/mix_network$([ $width = 0.5 ] || echo _$width)
  $hauberk mix --network $runs/mixing_cifar10_small-seed0 --clean 0.732 --width $width --threat $threat -o $network
  $hauberk attack $network "${suite[@]}" --attack apgd,steps=50,loss=alpha_down
  .venv/bin/python reproductions/part_attacks.py $network gray_box robust accurate
done

mixes=($runs/mix_alpha_* $nuts $runs/mix_network $runs/mix_network_0.1)
for run in "${mixes[@]}"; do
  $hauberk verify $run --weights
  rm -rf results/adaptive_smoothing/$(basename $run)
  $hauberk bundle $run -o results/adaptive_smoothing/$(basename $run)
done
# the base nets met AutoAttack in benchmarks/results.sh, the mixes the suite above and attacks of their own: no verdicts
$hauberk compare results/adaptive_smoothing/mix_* --threat $threat --unlike-attacks --format md \
  --line results/cifar10/standard_cifar10_small-seed0 results/cifar10/pgd_cifar10_small-seed0 \
  > results/adaptive_smoothing/tradeoff.md
