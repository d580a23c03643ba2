"""Wrong versions of what is proved of random models: their draws, their votes and their means."""

from __future__ import annotations

from mutant import Mutant, group

RANDOM: list[Mutant] = [
    *group(
        "random", "randomness.py", "tests/layers/test_draw_mean.py",
        ('return replace(self, purpose="/".join((self.purpose, name)))', "return self"),
        ("PerSample(self.seed, (SHARED,), f\"{self.purpose}#{self.number}\")  # on",
         "PerSample(self.seed, (SHARED,), self.purpose)  # on"),
        ("PerSample(self.seed, (SHARED,), f\"{self.purpose}#{self.number}\")  # on",
         "PerSample(0, (SHARED,), f\"{self.purpose}#{self.number}\")  # on"),
        ("row.to(self._device).expand(self._rows, *row.shape[1:]).clone()",
         "row.to(self._device).expand(self._rows, *row.shape[1:])"),
    ),
    *group(
        "random", "draws.py", "tests/layers/test_draw_mean.py",
        ("    elif not isinstance(module, FixesDraws):\n", "    else:\n"),
        ("if isinstance(model, Random | FixesDraws):", "if isinstance(model, Random):"),
    ),
    *group(
        "random", "classifier.py", "tests/layers/test_draw_mean.py",
        ("own.stochastic and not isinstance(module, Random)", "own.stochastic"),
    ),
    *group(
        "random", "layers/freezing.py", "tests/layers/test_draw_mean.py",
        ("layer.register_forward_pre_hook(partial(hold, layer))",
         "layer.register_forward_pre_hook(lambda copied, inputs: hold(copied, copied, inputs))"),
    ),
    *group(
        "random", "layers/draw_mean.py", "tests/layers/test_draw_mean.py",
        ("return total / self.draws\n", "return total\n"),
        ("drawn(self.body, PublicDraw(self.seed, number))", "drawn(self.body, PublicDraw(self.seed, 0))"),
        ("math.nextafter(total / self.draws, math.inf)", "math.nextafter(total, math.inf)"),
        ("math.nextafter(total / self.draws, math.inf)", "math.nextafter(total / self.draws - 1e-6, math.inf)"),
        ("features.clone())\n        return", "features)\n        return"),
        ("if draws < 1 or seed < 0:", "if draws < 1:"),
        ("if draws < 1 or seed < 0:", "if seed < 0:"),
    ),
    *group(
        "random", "defences/frozen_ensemble.py", "tests/defences/test_frozen_ensemble.py",
        ("if isinstance(base, Decides):", "if False:"),
        ("if not draws_by_key(base):", "if False:"),
        ("return made.train(base.training)", "return made"),
        ("and computes_as(last, nn.Linear)", ""),
        ("*others, (name, last) = model._modules.items()", "*others, (name, last) = model.named_children()"),
        ("DrawMean(body, draws, seed)", "DrawMean(body, draws)"),
    ),
    *group(
        "random", "defences/smoothed.py", "tests/certificates/test_joint_smoothing.py",
        ("if not draws_by_key(base):\n        logits", "if True:\n        logits"),
        ("Votes(seed, sample, (first + row,), f", "Votes(seed, sample, (0,), f"),
        ("Votes(seed, sample, (first + row,), f", "Votes(seed, 0, (first + row,), f"),
        ("Votes(seed, sample, (first + row,), f", "Votes(0, sample, (first + row,), f"),
        ("Votes(seed, sample, (first + row,), f", "Votes(seed, sample, (row,), f"),
        ("{purpose}-inside", "inside"),
        ("if len(self.ids) != 1:", "if False:"),
        ("drawn(self.base, PublicDraw(0, number))", "self.base"),
        ("NamesItself, FixesDraws):", "NamesItself):"),
        ("f\"draws of {predictor_name(base)}\" if draws_by_key(base) else", ""),
    ),
    *group(
        "random", "certificates/voted.py", "tests/certificates/test_joint_smoothing.py",
        ("\"base\", random=True):", "\"base\"):"),
    ),
    *group(
        "random", "certificates/gate.py", "tests/certificates/test_joint_smoothing.py",
        ("drawn(model, PublicDraw(0, 0)) if random else model", "drawn(model, PublicDraw(0, 0))"),
    ),
]  # fmt: skip
