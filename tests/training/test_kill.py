"""A real process, killed with SIGKILL at random moments, ends with the bits of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import torch

SCRIPT = textwrap.dedent("""
    import sys, time
    import torch
    from torch import nn
    from hauberk.attacks.pgd import PGD
    from hauberk.data import Augmentation, Dataset, Split
    from hauberk.objectives.trades import TRADES
    from hauberk.runs import Run
    from hauberk.threats import Linf
    from hauberk.training.config import Training
    from hauberk.training.loop import fit

    def split(name, count, first):
        generator = torch.Generator().manual_seed(first)
        images = torch.randint(0, 256, (count, 1, 6, 6), generator=generator).to(torch.uint8)
        return Split(name, images, images.flatten(1).long().sum(1) % 3, torch.arange(first, first + count))

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3)
    )
    attack = PGD(Linf(0.05), loss="kl", steps=2)
    config = Training(
        epochs=12, batch_size=16, lr=0.05, ema=0.9, augmentation=Augmentation(crop=1, flip=True), threads=1,
        validation_attack=PGD(Linf(0.05), steps=2), checkpoint_minutes=1e-9,
    )
    dataset = Dataset("noise", ("a", "b", "c"), split("train", 160, 0), split("val", 32, 160), split("test", 3, 0))
    run = Run.create(sys.argv[1], {"name": "x", "data": {"name": "digits"}})
    print("ready", flush=True)
    model = fit(model, TRADES(attack, beta=2.0), dataset, config, run, seed=1)
    torch.save(model.state_dict(), sys.argv[2])
""")


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, str(folder / "train.py"), str(folder / name), str(folder / f"{name}.pt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_and_run_again_gives_the_same_bits(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    whole = start(tmp_path, "whole")
    began = time.monotonic()
    assert whole.wait() == 0
    length = time.monotonic() - began
    whole.stdout.close()

    moments, killed = random.Random(6), 0
    for attempt in range(40):
        process = start(tmp_path, "broken")
        try:
            process.wait(timeout=length * moments.uniform(0.05, 0.5) if attempt < 2 else 60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.stdout.close()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 1
    first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "broken"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    rows = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("whole", "broken")]
    assert rows == [12, 12]
