#!/usr/bin/env bash
# Mixes of two published CIFAR-10 nets at Linf 2/255: results/published.  HAUBERK_MODELS names the folder of their weights,
# HAUBERK_DATA that of CIFAR-10.  Both nets know the validation images, so everything is chosen on 2,000 test images that
# are not reported.  IMAGES=1000 SUITE=standard is the whole of it.  Every step resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
hauberk=.venv/bin/hauberk nets=reproductions.published_nets runs=runs/published
images=${IMAGES:-128} suite=${SUITE:-fast} threat=linf:2/255
data=(--data cifar10 --calibrate-on 2000)
pair=(--accurate $nets:resnet20 --robust $nets:resnet4b)
choice=("${data[@]}" --calibration-images all --threat $threat --keep 92%)

$hauberk mix "${pair[@]}" "${choice[@]}" --choose nuts -o $runs/mix_nuts --json \
  > results/published/calibration_nuts.json
$hauberk mix "${pair[@]}" "${choice[@]}" --images 1000 -o $runs/mix_alpha
$hauberk train reproductions/mixing_published.yaml -o $runs/mixing --trust-code
# the clean accuracy that MixedNUTS was chosen for on the same images
$hauberk mix --network $runs/mixing "${data[@]}" --calibration-images all --threat $threat --clean 83.1% --width 0.3 \
  -o $runs/mix_network --images 1000 --trust-code --json > results/published/calibration_network.json
for net in resnet20 resnet4b; do
  # a budget of 0 is accuracy without an attack, on more images than are attacked
  $hauberk attack $nets:$net "${data[@]}" --images 1000 --threat linf:0 --attack fgsm --one-norm -o $runs/$net
  $hauberk attack $nets:$net "${data[@]}" --images ${IMAGES:-256} --threat $threat --suite $suite --one-norm -o $runs/$net
done
attacked=(--images $images --tile 32 --threat $threat --one-norm --trust-code)
for mix in mix_nuts mix_network; do
  $hauberk attack $runs/$mix --images 1000 --threat linf:0 --attack fgsm --one-norm --trust-code
  $hauberk attack $runs/$mix "${attacked[@]}" --suite $suite
done
# fewer attacks on one weight, so its robust share is no match for the others; with SUITE it meets the same
if [ -n "${SUITE:-}" ]; then
  $hauberk attack $runs/mix_alpha "${attacked[@]}" --suite $suite
else
  $hauberk attack $runs/mix_alpha "${attacked[@]}" --attack apgd,steps=50,loss=margin \
    --attack apgd,steps=50,loss=dlr,targets=3 --attack part,part=robust
fi
for run in resnet20 resnet4b mix_nuts mix_network mix_alpha; do
  rm -rf results/published/$run
  $hauberk bundle $runs/$run -o results/published/$run
done
.venv/bin/python reproductions/published_knowledge.py
.venv/bin/python reproductions/published_mixes.py
