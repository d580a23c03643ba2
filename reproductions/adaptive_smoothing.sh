#!/usr/bin/env bash
# Mixes of the small standard net and a robust one, from committed recipes, about two hours on one core:
#
#     bash reproductions/adaptive_smoothing.sh                      # pgd_cifar10_small: results/adaptive_smoothing
#     bash reproductions/adaptive_smoothing.sh best_cifar10_small   # the best net of an hour: a folder of its own in it
#
# Every step resumes; the best net takes an hour more, and as long for AutoAttack.  Needs benchmarks/results.sh first.
# Nothing is chosen on test images: MixedNUTS and the network's range are calibrated on the validation split.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk
runs=runs/small_cifar10 results=results/adaptive_smoothing
robust=${1:-pgd_cifar10_small}
threat=linf:8/255
standard=$runs/standard_cifar10_small-seed0 strong=$runs/$robust-seed0
# cross-entropy, and the targeted difference of logits towards the three likeliest wrong classes; on the images of
# benchmarks/results.sh
suite=(--threat $threat --attack apgd,steps=50 --attack apgd,steps=50,loss=dlr,targets=3 --first)

alphas="0.5 0.6 0.7 0.8 0.9 0.95" images=1000 line=results/cifar10/standard_cifar10_small-seed0
if [ $robust != pgd_cifar10_small ]; then
  runs=$runs/mixes_$robust results=$results/$robust alphas="0.8 0.9" images=500
  mkdir -p $runs $results
  $hauberk train $robust -o $strong
  $hauberk attack $strong --first
  $hauberk verify $strong --weights
  rm -rf results/cifar10/$robust-seed0
  $hauberk bundle $strong -o results/cifar10/$robust-seed0
  $hauberk compare results/cifar10/{pgd_cifar10_small,$robust}-seed0 --threat $threat --format md \
    > results/cifar10/best_against_pgd.md
  line=$results/standard_cifar10_small-seed0  # the accurate net on the same images, as it was trained here
  $hauberk attack $standard --threat $threat --attack apgd,steps=50 --images $images --first
  rm -rf $line
  $hauberk bundle $standard -o $line
fi
suite+=(--images $images)

# one weight for all images: the curve between the base models
for alpha in $alphas; do
  mix=$runs/mix_alpha_$alpha
  $hauberk mix --accurate $standard --robust $strong --alpha $alpha --images 1000 --first -o $mix
  $hauberk attack $mix "${suite[@]}"
done

# MixedNUTS, for 93 % of what the robust model keeps on validation images
nuts=$runs/mix_nuts
$hauberk mix --accurate $standard --robust $strong --choose nuts --keep 93% --threat $threat -o $nuts
$hauberk attack $nuts "${suite[@]}"
.venv/bin/python reproductions/part_attacks.py $nuts surrogate robust accurate --images $images --first

mixes=($runs/mix_alpha_* $nuts)
# the mixing network, which reads features of the same places in both nets; its range leads to the clean accuracy that
# MixedNUTS promised on validation images
if [ $robust = pgd_cifar10_small ]; then
  $hauberk train mixing_cifar10_small -o $runs/mixing_cifar10_small-seed0
  for width in 0.5 0.1; do
    network=$runs/mix_network$([ $width = 0.5 ] || echo _$width)
    $hauberk mix --network $runs/mixing_cifar10_small-seed0 --clean 0.732 --width $width --threat $threat -o $network
    $hauberk attack $network "${suite[@]}" --attack apgd,steps=50,loss=alpha_down
    .venv/bin/python reproductions/part_attacks.py $network gray_box robust accurate --images $images --first
  done
  mixes+=($runs/mix_network $runs/mix_network_0.1)
fi

for run in "${mixes[@]}"; do
  $hauberk verify $run --weights
  rm -rf $results/$(basename $run)
  $hauberk bundle $run -o $results/$(basename $run)
done
# the base nets met AutoAttack in benchmarks/results.sh, the mixes the suite above and attacks of their own: no verdicts
$hauberk compare $results/mix_* --threat $threat --unlike-attacks --format md \
  --line $line results/cifar10/$robust-seed0 \
  > $results/tradeoff.md
