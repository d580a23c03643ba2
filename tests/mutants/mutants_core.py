"""Wrong versions of threats, certificates, defences, statistics, verification and randomness."""

from __future__ import annotations

from mutant import Mutant, group

SHARED = " ".join(
    f"tests/evaluation/test_voting.py::{name}"
    for name in (
        "test_draws_in_another_order_are_refused",
        "test_draws_are_given_again_to_every_noise",
        "test_noise_that_images_share_gives_each_the_votes_of_one_stream",
        "test_the_counts_of_an_image_have_one_law_and_those_of_equal_images_are_equal",
        "test_shared_noise_and_noise_of_their_own_have_plans_apart",
        "test_verify_sees_votes_of_shared_noise_that_are_called_independent",
    )
)

THREATS = group(
    "threats", "threats.py", "tests/test_threats.py",
    ("origins + budget).clamp_(0.0, 1.0)", "origins + budget).clamp_(-1.0, 1.0)"),
    ("factor = torch.where(_per_row(cut, origins), _per_row(found.sqrt(), origins), factor)", "pass"),
    ("factor = (budget / _per_row(", "factor = (2.0 * budget / _per_row("),
    ("torch.add(points, signs, alpha=2.0)", "torch.sub(points, signs, alpha=2.0)"),
    ("full.mul_(rooms).sum(1)\n        raised", "full.mul_(slopes).sum(1)\n        raised"),
    ("free = moved.sub_(full)", "free = moved"),
    ("/ count.clamp_min(1.0)", "/ 1.0"),
    ("uniform.abs().clamp_max(0.5 - 2.0**-25)", "uniform.abs()"),
    ("self.project(origins + budget * (2.0 * uniform - 1.0)", "self.project(origins + budget * uniform"),
    ("flat.gather(1, index).sign())", "flat.gather(1, index))"),
    (".clamp_min(torch.finfo(gradient.dtype).tiny)", ".clamp_min(1e-6)"),
    ("return norms(points.double() - origins.double(), self.norm)", "return norms(points - origins, self.norm)"),
    ("exponent[target] - exponent[source])", "exponent[source] - exponent[target])"),
)  # fmt: skip

LIPSCHITZ = [
    *group(
        "lipschitz", "certificates/lipschitz.py", "tests/certificates/test_lipschitz.py",
        ("np.where(bounds > 0.0, gaps / bounds,", "np.where(bounds > 0.0, 1.0001 * gaps / bounds,"),
        ("(bounds == 0.0) & (gaps > 0.0), np.inf, 0.0", "bounds == 0.0, np.inf, 0.0"),
        ("seen.constants.pairwise[y]", "seen.constants.pairwise[0]"),
        ("gaps - bounds * radius", "gaps - 0.5 * bounds * radius"),
        ("return probability * -math.expm1(-smallest)", "return -math.expm1(-smallest)"),
        ("if not smallest >= 0.0:", "if smallest < -1e9:"),
        ("not np.isfinite(seen.logits).all() or", ""),
        ("return seen.top if seen.deployed in (None, seen.top) else ABSTAIN", "return seen.top"),
        ("self.margin(seen, r) * (1.0 - 1e-12)", "self.margin(seen, r) * 1.5"),
        ("reach(*self.gaps(seen)).min()", "reach(*self.gaps(seen)).max()"),
    ),
    *group(
        "lipschitz", "certificates/base.py", "tests/certificates/test_base.py",
        ("radius * (1.0 - relative)", "radius * (1.0 + relative)"),
        ("(middle, high) if margin_at(middle) > margin else (low, middle)",
         "(middle, high) if margin_at(middle) > 0 else (low, middle)"),
    ),
]  # fmt: skip

SMOOTHING = [
    *group(
        "smoothing", "noises/base.py", "tests/noises",
        ("self.quantile(0.5 * (1.0 + margin))", "self.quantile(0.5 * (1.0 - margin))"),
        ("float(self.sigma * (self.quantile(probability)", "float(0.5 * self.sigma * (self.quantile(probability)"),
        ("kept = self.cdf(self.quantile(probability) - radius / self.sigma)",
         "kept = self.cdf(self.quantile(probability))"),
        ("reached = 1.0 - kept if rival is None else", "reached = 0.0 if rival is None else"),
        ("self.cdf(self.quantile(rival) + radius / self.sigma)", "self.cdf(self.quantile(rival))"),
        ("float(0.5 * self.sigma * (self.quantile(probability) - self.quantile(rival)))",
         "float(self.sigma * (self.quantile(probability) - self.quantile(rival)))"),
        # Theorem A.1 as printed
        ("float(self.sigma * (self.quantile(probability) - self.quantile(0.5 * (1.0 + margin))))",
         "float(0.5 * self.sigma * (self.quantile(probability / (1 + margin))"
         " - self.quantile((1 - probability + margin) / (1 + margin))))"),
    ),
    *group("smoothing", "noises/gaussian.py", "tests/noises", (".mul_(self.sigma)", ".mul_(self.sigma**2)"),
           ("math.sqrt(2.0 * math.pi)", "math.sqrt(math.pi / 2.0)")),
    *group(
        "smoothing", "noises/laplace.py", "tests/noises",
        (".mul_(self.sigma / _ROOT)", ".mul_(self.sigma)"),
        ("torch.hypot(first, second).mul_(third)", "torch.hypot(first, second)"),
        ("0.5 * math.exp(-_ROOT * abs(value))", "0.5 * math.exp(-abs(value))"),
        ("return 1.0 / (_ROOT * self.sigma)", "return 0.5 / (_ROOT * self.sigma)"),
    ),
    *group(
        "smoothing", "certificates/voted.py", "tests/certificates/test_smoothing.py",
        ("seen.lower(own, self.alpha) - self.step.slack", "own / seen.n"),
        ("if seen.plan != self.plan or", "if False or"),
    ),
    *group(
        "smoothing", "certificates/voted.py", "tests/certificates/test_runner_up.py",
        ("max(others(seen)), 0.5 * self.alpha", "max(others(seen)), self.alpha"),
        ("other, half = max(others(seen))", "other, half = min(seen.counts)"),
        ("min(upper + self.step.slack, 1.0 - lower)", "1.0 - lower"),
    ),
    *group(
        "smoothing", "noises/grid_gaussian.py", "tests/noises/test_grid_gaussian.py",
        ("return LEVELS * self.sigma * 2.0**-27", "return 0.0"),
        (".add_(image.mul(LEVELS).round_()).div_(LEVELS)", ".div_(LEVELS).add_(image)"),
        ("image.mul(LEVELS).round_()", "image.mul(LEVELS)"),
        ("found.sub_(len(table) // 2)", "found.sub_(len(table) // 2 - 1)"),
        ("torch.where(first == last, first, -1)", "first"),
        ("(k - 0.5) / spread", "k / spread"),
    ),
    *group(
        "smoothing", "noises/uniform.py", "tests/noises/test_uniform.py",
        (".mul_(self.sigma * _ROOT)", ".mul_(self.sigma)"),
        ("0.5 + 0.5 * value / _ROOT", "0.5 + value / _ROOT"),
        ("return 0.5 / (_ROOT * self.sigma)", "return 1.0 / (_ROOT * self.sigma)"),
    ),
    *group(
        "smoothing", "certificates/votes.py", "tests/certificates/test_smoothing.py",
        ('f"smoothing-{block.purpose}@{block.start}"', 'f"smoothing-{block.start}"'),
    ),
    *group(
        "votes", "certificates/smoothing.py", "tests/evaluation/test_voting.py",
        ('if self.goal is not None and self.rule not in ("anytime", "looks"):', "if False:"),
        ("return self.radius(seen) >= self.goal or", "return self.radius(seen) >= 0.0 or"),
        ("or self.noise.radius(most, 0.0, self._rival(least)) < self.goal", ""),
    ),
    *group(
        "votes", "certificates/voted.py", "tests/evaluation/test_voting.py",
        (" or not self.plan.judges(seen.n):", ":"),
    ),
    *group(
        "votes", "certificates/evidence.py", "tests/evaluation/test_voting.py",
        ("return self.plan.n if self.drawn is None else self.drawn", "return self.plan.n"),
    ),
    *group(
        "votes", "verify/polls.py", "tests/evaluation/test_voting.py",
        ('evidence.get("drawn", shared["n"])', 'shared["n"]'),
    ),
    *group(
        "votes", "certificates/votes.py", "tests/evaluation/test_voting.py",
        ("min(max(2 * start, FIRST), count)", "min(start + count // 2 + 1, count)"),
    ),
    *group(
        "votes", "certificates/evidence.py", "tests/evaluation/test_voting.py",
        ('(replace(self, n=other.n) if self.rule == "anytime" else self)', "replace(self, n=other.n)"),
        ('(replace(self, n=other.n) if self.rule == "anytime" else self)', "self"),
    ),
    *group(
        "votes", "evaluation/voting.py", "tests/evaluation/test_voting.py",
        ("[] if path.exists() else [asked]", "[]"),
        ("{} if planned.allows(poll.plan) else planned.plain()", "{}"),
        ('DRAWN = ("weights", "seed", "device")', 'DRAWN = ("weights",)'),
    ),
    *group(
        "shared", "certificates/votes.py", SHARED,
        ('if self.plan.draws == "shared":', "if False:"),
        ("key = (seed, SHARED, purpose)", "key = (seed, int(batch.ids[0]), purpose)"),
        ("key = (seed, SHARED, purpose)", "key = (0, SHARED, purpose)"),
        ("key = (seed, SHARED, purpose)", "key = (seed, SHARED, block.purpose)"),
    ),
    *group(
        "shared", "defences/smoothed.py", SHARED,
        ("        draws.again()\n", ""),
        ("    draws.forget()\n", ""),
        ("        return draws.clone()  # a noise", "        return draws  # a noise"),
        ("        if (known, size) != (kind, shape):\n", "        if False:\n"),
    ),
    *group(
        "shared", "evaluation/voting.py", SHARED,
        ('{"draws": poll.plan.draws} if poll.plan.draws != "own" else {}', "{}"),
        ('item.unit.get("draws", "own")', '"own"'),
    ),
    *group(
        "shared", "verify/polls.py", SHARED,
        ('for k in ("noise", "draws") if', 'for k in ("noise",) if'),
        ('["draws"] if plan.unit.get("draws", "own") != shared.get("draws", "own") else []', "[]"),
    ),
    *group("shared", "verify/proofs.py", SHARED, (', ("draws", "own"))', ")")),
    *group("shared", "audit/votes.py", "tests/audit/test_votes.py", ("    if not apart:\n", "    if False:\n"),
           ("    if not apart:\n", "    if apart:\n")),
    *group(
        "votes", "records.py", "tests/evaluation/test_voting.py",
        ('APART if item.kind == "votes" else APART[:1]', "APART[:1]"),
    ),
    *group(
        "votes", "verify/polls.py", "tests/evaluation/test_voting.py",
        ("if not _is_block(r, classes) or", "if"),
        ("if _poll(part) not in plans:", "if False:"),
        ('.get("SmoothingCertificate", 0) >= SINCE or', '.get("SmoothingCertificate", 0) > SINCE or'),
        ("if name not in plans:", "if False:"),
        ("if of_others or noise_of(plan.unit) != noise_of(shared):", "if False:"),
        ("elif summed != evidence[purpose]:", "elif False:"),
        ("if summed is None:", "if False:"),
        ("(np.asarray(v) < np.asarray(few)).any()", "False"),
        ('if other and "exploratory" not in part.facts:', "if False:"),
    ),
    *group(
        "votes", "verify/derive/votes.py", "tests/evaluation/test_voting.py",
        ("return _anytime if 0 < drawn", "return _fixed if 0 < drawn"),
        ("+ np.log(alpha)", "+ 0.5 * np.log(alpha)"),
    ),
    *group(
        "evidence", "certificates/lipschitz.py", "tests/certificates/test_base.py",
        ("if seen.constants.norm != self.norm:", "if False:"),
    ),
    *group(
        "evidence", "certificates/local_lipschitz.py", "tests/certificates/test_base.py",
        ("if (seen.norm, seen.eps) != (self.threat.norm, self.threat.eps):", "if False:"),
    ),
    *group(
        "smoothing", "certificates/smoothing.py", "tests/certificates/test_smoothing.py",
        ("return seen.chosen if lower > upper else", "return seen.chosen if lower > 0.0 else"),
        ("return round_down(self.noise.radius(lower, margin, self._rival(upper))) if",
         "return self.noise.radius(lower, 0.0, self._rival(upper)) if"),
    ),
    *group(
        "smoothing", "certificates/voted.py", "tests/certificates/test_smoothing.py",
        ("if model.noise != self.step:", "if False:"),
    ),
    *group(
        "smoothing", "certificates/evidence.py", "tests/certificates/test_smoothing.py",
        ("return int(np.argmax(self.counts0))", "return int(np.argmax(self.counts))"),
        ("self.plan.lower(votes, self.n, alpha, self.u)", "self.plan.lower(votes, sum(self.counts), alpha, self.u)"),
    ),
    *group(
        "mixed", "certificates/evidence.py", "tests/certificates/test_mixed.py",
        ("replace(self, pairwise=factor * self.pairwise)", "self"),
        ('"mix_alpha": self.alpha}', '"mix_alpha": self.alpha, "alpha": self.alpha}'),
    ),
    *group(
        "smoothing", "defences/smoothed.py", "tests/defences/test_smoothed.py",
        ("clear = top.values[:, 0] > top.values[:, 1]", "clear = top.values[:, 0] >= top.values[:, 1]"),
        ("two_sided_binomial_p(first, second) <= self.alpha",
         "0.5 * two_sided_binomial_p(first, second) <= self.alpha"),
        ("[:used]", "[:tile]"),
        ('(key.seed, sample_id, "smoothed-decide")', '(key.seed, 0, "smoothed-decide")'),
        ("return total - float(np.log(self.bank))", "return total"),
        (" if two_sided_binomial_p(first, second) <= self.alpha else ABSTAIN", ""),
    ),
]  # fmt: skip

MIXED = [
    *group(
        "mixed", "certificates/mixed.py", "tests/certificates/test_mixed.py",
        ("return (1.0 - alpha) / alpha\n", "return 1.0 - alpha\n"),
        ("(1.0 + 1e-12) / (1.0 + margin)", "(1.0 - 1e-12) / (1.0 + margin)"),
        ("> required_margin(seen.alpha) else", "> 0.0 else"),
        ("needed = (1.0 - alpha + margin) / alpha", "needed = (1.0 - alpha) / alpha"),
        ("needed = (1.0 - alpha + margin)", "needed = 0.5 * (1.0 - alpha + margin)"),
        ("radius) - (1.0 - alpha)", "radius) + (1.0 - alpha)"),
        ("if isinstance(self.base, MixedCertificate):", "if False:"),
    ),
    *group(
        "mixed", "defences/mixed.py", "tests/defences/test_mixed.py tests/certificates/test_mixed.py",
        ("math.log1p(-alpha) + accurate", "math.log(alpha) + accurate"),
        ("return torch.logaddexp(\n        math.log1p(-alpha) + accurate.log_softmax(1),"
         " math.log(alpha) + robust.log_softmax(1)\n    )",
         "return ((1 - alpha) * accurate.softmax(1) + alpha * robust.softmax(1)).log()"),
        ("if self.alpha == 1.0:", "if False:"),
        ("mixed(alpha={self.alpha!r}", "mixed(alpha={self.alpha:.6g}"),
        ("if not (0.0 < accurate_scale < math.inf and 0.0 < robust_scale < math.inf):", "if False:"),
        ("return self.robust_scale * logits", "return self.accurate_scale * logits"),
    ),
]  # fmt: skip

METRICS = [
    *group(
        "metrics", "evaluation/metrics.py", "tests/evaluation/test_metrics.py",
        ("return _share(c & (r >= eps))", "return _share(r >= eps)"),
        ("_share(c & (r >= eps))", "_share(c & (r > eps))"),
        ("np.where(c, r, 0.0)", "r[c]"),
        ("wilson(int((c & ~s).sum()), int(c.sum()))", "wilson(int((~s).sum()), len(c))"),
        ("return _share(c & s)", "return _share(s)"),
        ("np.logical_and.reduce(rows)", "np.logical_or.reduce(rows)"),
    ),
    *group(
        "metrics", "statistics.py", "tests/test_statistics.py",
        ("stats.beta.ppf(alpha, successes, n - successes + 1)", "stats.beta.ppf(alpha, successes + 1, n - successes)"),
        ("2.0 * float(stats.binom.sf(max(a, b) - 1", "1.0 * float(stats.binom.sf(max(a, b) - 1"),
        ("stats.binom.sf(max(a, b) - 1, a + b", "stats.binom.sf(max(a, b), a + b"),
        ("centre = (share + z * z / (2 * n)) / shrink", "centre = share"),
        ("goal = -math.log(alpha)", "goal = -math.log(2 * alpha)"),
        ("b, c, n = int((one & ~other).sum()), int((~one & other).sum())",
         "b, c, n = int((~one & other).sum()), int((one & ~other).sum())"),
        ("half * half + 8.0 * n * c * spread", "half * half"),
        ("(len(p) - rank) * p[i]", "len(p) * p[i]"),
        ("largest = max(largest, min(1.0, ", "largest = (min(1.0, "),
        ("float(data.std(ddof=1))", "float(data.std())"),
    ),
]  # fmt: skip

VERIFY = group(
    "verify", "verify/proofs.py", "tests/test_verify.py",
    ("if recorded > radius * (1.0 + SLACK):", "if recorded > 2.0 * radius:"),
    ("if recorded < radius * (1.0 - 1e-6) - SLACK:", "if False:"),
    ('if row["prediction"] != top:', "if False:"),
    ('if claimed != (1.0 if estimated else float(asked["alpha"]) if probabilistic or drawn else 0.0):', "if False:"),
    ('if part.facts["proof"] != ("estimate" if estimated else usual):', "if False:"),
    ("if name in asked and shared[kept] != asked[name]", "if False"),
    ('if part.facts["norm"] != norm or asked.get("norm", norm) != norm:', "if False:"),
    ("if not np.isfinite(recorded) or recorded < 0.0:", "if recorded < 0.0:"),
    ("if derive is None:", "if derive is None and False:"),
) + group(
    "verify", "verify/derive/logits.py", "tests/test_verify.py",
    ("largest = float((gaps / speeds).min())", "largest = float((gaps / speeds).max())"),
    ('if row.get("deployed", top) != top:', "if False:"),
) + group(
    "verify", "verify/derive/votes.py", "tests/test_verify.py",
    ("special.betainc(votes, total - votes + 1, p)", "special.betainc(votes + 1, total - votes, p)"),
    ("law.ppf((1.0 + margin) / 2.0)", "law.ppf(0.5)"),
    ('if first.sum() > shared["n0"] or second.sum() > total:', "if False:"),
) + group(
    "verify", "verify/derive/mixes.py", "tests/test_verify.py",
    ("if alpha < 0.5:", "if alpha < 0.0:"),
) + group(
    "verify", "verify/paths.py", "tests/test_verify.py",
    ("if says and not proved:", "if False:"),
)  # fmt: skip

RANDOMNESS = [
    *group(
        "randomness", "randomness.py", "tests/test_randomness.py",
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{sample_id}|{purpose}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}|{purpose}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}|{sample_id}"'),
        ('f"{seed}|{sample_id}|{purpose}"', 'f"{seed}{sample_id}{purpose}"'),
        ("int(i), purpose) for i in ids", "i, purpose) for i in range(len(ids))"),
        ("slice(offset, offset + rows)", "slice(0, rows)"),
        ('dtype="<u8"', 'dtype=">u8"'),
    ),
    *group(
        "randomness", "batch.py", "tests/test_classifier.py",
        ("min(size, len(self) - start)", "size"),
        ("torch.arange(start, start + size, device=self.images.device).clamp_(max=len(self) - 1)",
         "torch.arange(start, min(start + size, len(self)))"),
    ),
    *group(
        "randomness", "classifier.py", "tests/test_classifier.py",
        ("called(net, part.images)[:used]", "called(net, part.images)"),
        ('Key(seed, 0, tuple(part.ids.tolist()), "decide")', 'Key(0, 0, tuple(part.ids.tolist()), "decide")'),
        ("    if isinstance(model, NamedOutputs):\n", '    if hasattr(model, "outputs"):\n'),
    ),
    *group(
        "draws", "classifier.py", "tests/test_draws.py",
        ("Key(seed, number, tuple(part.ids.tolist()), purpose)", "Key(0, number, tuple(part.ids.tolist()), purpose)"),
        ("Key(seed, number, tuple(part.ids.tolist()), purpose)", "Key(seed, number, tuple(range(len(part))), purpose)"),
        ("        net = drawn(model, key)  #", "        net = model  #"),
    ),
    *group(
        "draws", "randomness.py", "tests/test_draws.py",
        ('PerSample(self.seed, self.ids, f"{self.purpose}#{self.number}", like.device)',
         'PerSample(self.seed, self.ids, self.purpose, like.device)'),
        ('PerSample(self.seed, (SHARED,), f"{self.purpose}#{self.number}", like.device)',
         'PerSample(self.seed, self.ids, f"{self.purpose}#{self.number}", like.device)'),
        ('purpose=f"{self.purpose}/{name}"', "purpose=self.purpose"),
    ),
    *group(
        "draws", "draws.py", "tests/test_draws.py",
        ("if id(module) in done:", "if False:"),
        ("made = copy.copy(module)\n", "made = module\n"),
        ('                del vars(made)["forward"]\n', "                pass\n"),
        (".train(module.training)", ""),
        ("return Fenced(drawn(model, key), key)", "return drawn(model, key)"),
        ('and forward.func.__module__ == "hauberk.attacks.gradients"', ""),
        ('stream(key.seed, key.number, f"{key.purpose} fence")', 'stream(key.seed, 0, f"{key.purpose} fence")'),
    ),
    *group(
        "draws", "attacks/query.py", "tests/test_draws.py",
        ("rows[self.forwards[rows].argsort(stable=True)]", "rows"),
        ("[rows] if self._draws is None or self.fixed else self._runs(rows)", "[rows]"),
        ("number=number + nth", "number=number"),
        ("else attackable(net)\n", "else nullcontext()\n"),
        ("[everything.argsort()]", ""),
    ),
    *group(
        "draws", "layers/lipschitz.py", "tests/test_draws.py",
        ('return drawn(layer, Key(0, 0, tuple(range(rows)), "walk")).eval()', "return layer"),
    ),
    *group(
        "draws", "certificates/gate.py", "tests/test_draws.py",
        ("if draws_by_key(model) and not random:", "if False:"),
    ),
    *group(
        "randomness", "evaluation/work.py", "tests/test_invariant.py",
        ("[index::count]", "[index:]"),
    ),
    *group(
        "randomness", "evaluation/keys.py", "tests/test_invariant.py",
        ('"seed": setting.seed,', ""),
        ('"tile": setting.tile,', ""),
    ),
]  # fmt: skip

CORE: list[Mutant] = [*THREATS, *LIPSCHITZ, *SMOOTHING, *MIXED, *METRICS, *VERIFY, *RANDOMNESS]
