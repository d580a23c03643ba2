"""Wrong versions of splitting noise, random and over all splits, of noise in the box, and of Gaussian noise in Linf."""

from __future__ import annotations

from mutant import Mutant, group

SPLITS = "tests/certificates/test_derandomised.py"

NOISES: list[Mutant] = [
    *group(
        "noises", "noises/splitting.py", "tests/noises/test_splitting.py",
        ("half = 0.5 * WIDTH * self.sigma", "half = WIDTH * self.sigma"),
        ("(noisy - half).clamp_min(0.0)", "(noisy - half)"),
        ("(noisy + half).clamp_max(1.0)", "(noisy + half)"),
        ("return self._middle(super().noisy(image, randomness))", "return super().noisy(image, randomness)"),
        ("return self._middle(super().added(images, draws))", "return super().added(images, draws)"),
    ),
    *group(
        "noises", "defences/derandomised.py", SPLITS,
        ("pixels - starts - 1, splits)", "pixels - starts, splits)"),
        ("(first + splits - 1).clamp_max(LEVELS)", "(first + splits - 1)"),
        ("first.clamp_min(0)", "first"),
        ("[: min(TILE, splits - start)]", ""),
        ("clear = top.values[:, 0] > top.values[:, 1]", "clear = top.values[:, 0] >= top.values[:, 1]"),
        ("if t.values[0] > t.values[1] else ABSTAIN", ""),
        (".integers(0, splits, shape)", ".integers(0, 1, shape)"),
        ("mul(LEVELS).round_().long()", "mul(LEVELS).long()"),
        ("self.base(images + (view - images).detach())", "self.base(view)"),
    ),
    *group(
        "noises", "certificates/derandomised.py", SPLITS,
        ("* self.splits) / 2) - 1", "* self.splits) / 2)"),
        ("* self.splits) / 2) - 1", "* self.splits)) - 1"),
        ("Fraction(margin) * self.splits", "Fraction(margin)"),
        ("min(most + 1, seen.pixels)", "0"),
        ("min(most + 1, seen.pixels)", "most + 1"),
        ("Fraction(1, 2) - Fraction(seen.away) - ALLOWANCE", "Fraction(1, 2) - ALLOWANCE"),
        ("self._lead(seen) - 2 * self._reached", "self._lead(seen) - self._reached"),
        ("return seen.top if self._lead(seen) > 0 else ABSTAIN", "return seen.top"),
        ('"l1" if self.attacker == "any" else "levels"', '"l1"'),
        ("if (seen.splits, seen.seed, seen.attacker) != (self.splits, self.seed, self.attacker):", "if False:"),
        ("if (model.splits, model.seed) != (self.splits, self.seed):", "if False:"),
        ("check_part(base)", "pass"),
        ("check_composite(model, DerandomisedClassifier)", "pass"),
        ("return seen.pixels + math.floor(length - seen.pixels * first)", "return math.floor(length)"),
    ),
    *group(
        "noises", "verify/derive/splits.py", SPLITS,
        ("while own - turned > rival + turned + asked:", "while own - turned >= rival + turned + asked:"),
        ("while own - turned > rival + turned + asked:", "while own - turned > rival + asked:"),
        ("Fraction(1, 2) - Fraction(float(row[\"away\"]))", "Fraction(1, 2)"),
        ("if k < row[\"pixels\"] else 1", "if k < 0 else 1"),
        ("if own <= rival or", "if own < rival or"),
        ("if any(row[\"pixels\"] != prod(shape) for row in rows):", "if False:"),
        ("if any(not 0.0 <= row[\"away\"] <= 0.5 for row in rows):", "if False:"),
        ("if any(sum(row[\"counts\"]) > shared[\"splits\"] for row in rows):", "if False:"),
        ("if shared[name] != asked.get(name, usual):", "if False:"),
    ),
    *group(
        "noises", "noises/gaussian_linf.py", "tests/noises/test_gaussian_linf.py",
        ("super().cdf(math.sqrt(self.pixels) * value)", "super().cdf(value)"),
        ("super().quantile(probability) / math.sqrt(self.pixels)", "super().quantile(probability)"),
        ("super().steepest * math.sqrt(self.pixels)", "super().steepest"),
        ("if image.numel() > self.pixels:", "if False:"),
    ),
    *group(
        "noises", "noises/in_box.py", "tests/noises/test_in_box.py",
        ("(1.0 - 1.0 / width) ** whole", "(1.0 - whole / width)"),
        ("whole = math.floor(length)", "whole = math.ceil(length)"),
        ("if width <= 1.0:  #", "if False:  #"),
        ("whole + 1, left * (1.0 - 1.0 / width)", "whole + 1, left - 1.0 / width"),
        ("- 2.0 * (1.0 - shared_part(", "- 1.0 * (1.0 - shared_part("),
        ("1.0 - 0.5 * (probability - other - margin)", "1.0 - (probability - other - margin)"),
        ("whole + width * (1.0 - needed / left)", "whole + width * (left - needed)"),
        ("return 1.5 - shared_part", "return 1.0 - shared_part"),
    ),
    *group(
        "noises", "verify/derive/votes.py", "tests/noises/test_gaussian_linf.py tests/noises/test_in_box.py",
        ('noise["sigma"] / noise["pixels"] ** 0.5', 'noise["sigma"]'),
        ("while 2.0 * lost(far) < lead:", "while lost(far) < lead:"),
        ('if noise_of(shared)["name"] in IN_BOX:', "if False:"),
    ),
    *group(
        "noises", "certificates/serving.py", "tests/certificates/test_serving.py",
        ("_batch(image[None], next(numbers))", "_batch(image[None], 0)"),
        ("check_batch(batch)", "pass"),
        ('if certificate.draws == "shared":', "if False:"),
        ("if tuple(image.shape) != shape:", "if False:"),
        ("certificate.n0 + seen.n,", "certificate.n,"),
        ("with certificate.gate(model, _batch(images, 0), tile):", "if True:"),
        ("if decided != ABSTAIN else 0.0", "if decided != ABSTAIN else 1.0"),
    ),
]
