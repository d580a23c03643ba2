"""The confusion matrix of ``hauberk.evaluation.diagnostics``: nets that hide their gradients, and honest ones.

Small nets are trained on the digits.  Masked ones wrap them in a known trick; honest ones are left alone; weak attacks
are badly set ones on honest nets.  Half of each kind is the tuning half, on which the limits were chosen; the other was
run only after that.  What is required: every masked net is flagged (questionable or broken), and no honest net is
called broken.  Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from hauberk.attacks import FGSM, PGD, Attack
from hauberk.batch import Batch
from hauberk.classifier import Traits
from hauberk.data.dataset import Dataset
from hauberk.data.digits import digits
from hauberk.evaluation.diagnostics import Diagnosis, cost, diagnose
from hauberk.evaluation.indicators import LIMITS
from hauberk.models.lip_convnet import lip_convnet
from hauberk.models.small_cnn import small_cnn
from hauberk.randomness import Shared
from hauberk.runs import environment
from hauberk.threats import Linf

EPS = 0.1
CHESS = torch.arange(8)[:, None] % 2 == torch.arange(8) % 2  # half of the pixels
Row: TypeAlias = dict[str, Any]
Cases: TypeAlias = dict[str, tuple[nn.Module, Attack | None]]


class Then(nn.Module):
    """A net with a function before or after it."""

    def __init__(self, net: nn.Module, before: Callable[[Tensor], Tensor] | None = None,
                 after: Callable[[Tensor], Tensor] | None = None) -> None:  # fmt: skip
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        values = images if self.before is None else self.before(images)
        logits: Tensor = self.net(values)
        return logits if self.after is None else self.after(logits)


class Detached(nn.Module):
    """The logits come from a branch without a graph, the gradient from an untrained one."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.net, self.other = net, other

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        decoy: Tensor = self.other(images)
        logits: Tensor = self.net(images.detach())
        return logits + 1e-4 * decoy


class WinnersTakeAll(nn.Module):
    """Keeps the largest few activations of each image: a discontinuous net (Xiao et al. 2020)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """The largest share of the activations, zero elsewhere."""
        flat = values.flatten(1)
        least = flat.topk(max(1, int(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0.0).reshape(values.shape)


class InputNoise(nn.Module):
    """Adds Gaussian noise to the image, and says so."""

    traits = Traits(stochastic=True)

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, values: Tensor) -> Tensor:
        """The noisy images."""
        return values + self.sigma * torch.randn(values.shape)


class RandomScale(nn.Module):
    """Multiplies by a fresh random factor, and says so."""

    traits = Traits(stochastic=True)

    def forward(self, values: Tensor) -> Tensor:
        """The images at a random scale."""
        return values * (0.5 + torch.rand(len(values), 1, 1, 1))


def cnn(width: int = 16, activation: Callable[[], nn.Module] = nn.ReLU, pool: bool = False) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 10)]
    dense = [nn.Flatten(), nn.Linear(32 * width, 64), activation(), nn.Linear(64, 10)]
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), activation(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        activation(), *(head if pool else dense),
    )  # fmt: skip


def mlp(*hidden: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    sizes = (64, *hidden)
    for k in range(len(hidden)):
        layers += [nn.Linear(sizes[k], sizes[k + 1]), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def train(
    net: nn.Module, data: Dataset, epochs: int = 12, adversarial: float = 0.0, noise: float = 0.0, sharpen: float = 1.0,
    rate: float = 3e-3,
) -> nn.Module:  # fmt: skip
    """Cross-entropy on clean, attacked (budget ``adversarial``) or noisy images; sharpen is an inverse temperature."""
    generator = torch.Generator().manual_seed(0)
    everything = data.train.batch(torch.arange(len(data.train)))
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(epochs):
        order = torch.randperm(len(everything), generator=generator)
        for rows in order.split(64):
            part = everything.select(rows)
            images = part.images
            if adversarial:
                attack = PGD(Linf(adversarial), steps=5)
                images = attack.perturb(net, images, part.labels, Shared(generator, len(part)))
            if noise:
                images = (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)
            net.train()
            optimizer.zero_grad()
            functional.cross_entropy(sharpen * net(images), part.labels).backward()
            optimizer.step()
    return net.eval()


def rounded(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.round(images * levels) / levels


class Bases:
    """The trained nets that are wrapped, each trained once."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.known = data, dict[str, nn.Module]()

    def __getitem__(self, name: str) -> nn.Module:
        if name not in self.known:
            torch.manual_seed(0)
            self.known[name] = self._train(name)
        return self.known[name]

    def _train(self, name: str) -> nn.Module:
        data = self.data
        if name == "lipschitz":
            net = lip_convnet(data.input_shape, 10, data.mean, data.std, widths=(8,), depth=1, hidden=32)
            return train(net, data, sharpen=4.0, epochs=10, rate=1e-2)
        if name == "batch norm":
            shape = (data.input_shape, 10, data.mean, data.std)
            return train(small_cnn(*shape, widths=(32, 64), strides=(1, 2)), data, epochs=8)
        plans: dict[str, tuple[nn.Module, dict[str, float]]] = {
            "cnn": (cnn(), {}),
            "adversarial cnn": (cnn(), {"adversarial": EPS}),
            "adversarial mlp": (mlp(64, 64), {"adversarial": EPS}),
            "linear": (mlp(), {}),
            "mlp": (mlp(64), {}),
            "overtrained mlp": (mlp(256, 256), {"epochs": 60}),
            "tanh mlp": (mlp(64, 64, activation=nn.Tanh), {}),
            "noise-trained pooling": (cnn(pool=True), {"noise": 0.2}),
            "smooth cnn": (cnn(activation=nn.GELU), {"adversarial": EPS / 2}),
            "binary-trained": (Then(cnn(), before=rounded(1)), {}),
            "8 levels, trained": (Then(cnn(), before=rounded(3)), {"noise": 0.1}),
            "winners take all": (
                nn.Sequential(nn.Flatten(), nn.Linear(64, 256), WinnersTakeAll(0.08), nn.Linear(256, 10)),
                {},
            ),
        }
        net, options = plans[name]
        return train(net, data, **options)  # type: ignore[arg-type]


def masked_tuning(bases: Bases) -> dict[str, nn.Module]:
    torch.manual_seed(1)
    return {
        "logits x 1e3": Then(bases["cnn"], after=lambda z: 1e3 * z),
        "adversarial, logits x 1e4": Then(bases["adversarial cnn"], after=lambda z: 1e4 * z),
        "rounded input": bases["8 levels, trained"],
        "scaled softmax": Then(bases["adversarial cnn"], after=lambda z: 10 * (2 * z).softmax(1)),
        "undeclared input noise": Then(bases["adversarial cnn"], before=lambda x: x + 0.1 * torch.randn(x.shape)),
        "detached branch": Detached(bases["cnn"], cnn().eval()),
        "detached pixels": Then(bases["adversarial cnn"], before=lambda x: torch.where(CHESS, x, x.detach())),
        "saturated tanh": Then(bases["cnn"], after=lambda z: 10 * torch.tanh(2 * z)),
    }


def masked_held_out(bases: Bases) -> dict[str, nn.Module]:
    torch.manual_seed(2)
    return {
        "logits x 1e6": Then(bases["mlp"], after=lambda z: 1e6 * z),
        "binary input": bases["binary-trained"],
        "sigmoid outputs": Then(bases["adversarial mlp"], after=lambda z: (3 * z).sigmoid()),
        "undeclared logit noise": Then(bases["mlp"], after=lambda z: z + torch.randn(z.shape)),
        "clamped logits": Then(bases["adversarial mlp"], after=lambda z: (20 * z).clamp(-5, 5)),
        "cold log-softmax": Then(bases["adversarial mlp"], after=lambda z: (300 * z).log_softmax(1)),
        "no graph": Then(bases["adversarial mlp"], before=lambda x: (255 * x).round().long() / 255),
        "winners take all": bases["winners take all"],
    }


def honest_tuning(bases: Bases) -> dict[str, nn.Module]:
    found = {n: bases[n] for n in ("cnn", "adversarial cnn", "linear", "batch norm", "mlp", "overtrained mlp")}
    return found | {"declared input noise": nn.Sequential(InputNoise(0.05), bases["adversarial cnn"])}


def honest_held_out(bases: Bases) -> dict[str, nn.Module]:
    names = ("lipschitz", "noise-trained pooling", "adversarial mlp", "tanh mlp", "smooth cnn")
    found = {n: bases[n] for n in names}
    return found | {"declared random scale": nn.Sequential(RandomScale(), bases["adversarial cnn"])}


def weak_tuning(bases: Bases) -> Cases:
    return {
        "adversarial cnn, tiny steps": (bases["adversarial cnn"], PGD(Linf(EPS), steps=10, step_size=EPS / 50)),
        "batch norm, FGSM": (bases["batch norm"], FGSM(Linf(EPS))),
    }


def weak_held_out(bases: Bases) -> Cases:
    return {
        "mlp, tiny steps": (bases["mlp"], PGD(Linf(EPS), steps=20, step_size=EPS / 100, random_start=False)),
        # not weak after all: it breaks the same 21 images as APGD on the margin with three restarts
        "smooth cnn, huge steps": (bases["smooth cnn"], PGD(Linf(EPS), steps=10, step_size=0.8)),
    }


def plain(nets: dict[str, nn.Module]) -> Cases:
    """Nets under the default attack."""
    return {name: (net.eval(), None) for name, net in nets.items()}


HALVES: dict[tuple[str, str], Callable[[Bases], Cases]] = {
    ("masked", "tuning"): lambda bases: plain(masked_tuning(bases)),
    ("masked", "held out"): lambda bases: plain(masked_held_out(bases)),
    ("weak attack", "tuning"): weak_tuning,
    ("weak attack", "held out"): weak_held_out,
    ("honest", "tuning"): lambda bases: plain(honest_tuning(bases)),
    ("honest", "held out"): lambda bases: plain(honest_held_out(bases)),
}


def row(
    kind: str, half: str, name: str, case: tuple[nn.Module, Attack | None], batch: Batch, steps: int
) -> Row:  # fmt: skip
    """One line."""
    began = time.process_time()
    found: Diagnosis = diagnose(case[0], batch, Linf(EPS), steps=steps, attack=case[1])
    fired = {c.name: c.verdict for c in found.checks if c.verdict != "sound"}
    return {
        "kind": kind, "half": half, "net": name, "verdict": found.verdict, "fired": fired,
        "seconds": round(time.process_time() - began, 2), "checks": [asdict(c) for c in found.checks],
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows, then the matrix."""
    lines = [f"{'kind':11} {'half':9} {'net':27} {'verdict':13} {'s':>5}  checks that fired (! broken)"]
    for r in rows:
        fired = ", ".join(n + ("!" if v == "broken" else "") for n, v in r["fired"].items())
        name = f"{r['kind']:11} {r['half']:9} {r['net']:27}"
        lines.append(f"{name} {r['verdict']:13} {r['seconds']:5.1f}  {fired or '-'}")
    lines += ["", f"{'':21} {'sound':>7} {'questionable':>13} {'broken':>7}"]
    for kind, half in HALVES:
        verdicts = [r["verdict"] for r in rows if (r["kind"], r["half"]) == (kind, half)]
        if verdicts:
            counts = [verdicts.count(v) for v in ("sound", "questionable", "broken")]
            lines.append(f"{kind + ', ' + half:21} {counts[0]:7d} {counts[1]:13d} {counts[2]:7d}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["tuning", "both"], default="both")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--values", action="store_true", help="print every value")
    parser.add_argument("--output", type=Path, default=Path("results/diagnostics"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    began = time.process_time()
    data = digits()
    batch = data.test.batch(torch.arange(options.images))
    bases = Bases(data)
    rows = []
    for (kind, half), nets in HALVES.items():
        if half != "tuning" and options.half == "tuning":
            continue
        for name, case in nets(bases).items():
            torch.manual_seed(0)  # the undeclared noise
            rows.append(row(kind, half, name, case, batch, options.steps))
            if options.values:
                print(kind, "|", name, {c["name"]: round(c["value"], 4) for c in rows[-1]["checks"]}, flush=True)
    print(table(rows))
    seconds = time.process_time() - began
    print(
        f"{seconds:.0f} processor seconds in all; at most {cost(options.steps)} passes an image of a deterministic net"
    )
    if options.half == "both":
        setting = {"data": "digits", "threat": str(Linf(EPS)), "images": options.images, "steps": options.steps}
        result = {"setting": setting, "environment": environment(), "limits": LIMITS, "seconds": round(seconds, 1)}
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "confusion.json").write_text(json.dumps(result | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
