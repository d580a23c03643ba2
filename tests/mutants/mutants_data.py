"""Wrong versions of how data is read, chosen and made floats."""

from __future__ import annotations

from mutant import Mutant, group

MEMORY = "tests/evaluation/test_memory.py"
ORDER = "tests/data/test_choice.py"
INSPECTION = "tests/data/test_inspection.py"
OBSERVED = "tests/report/test_observations.py"
NOTES = "tests/cli/test_notes.py"
FOLDER = "tests/data/test_folder.py"
CHOSEN = "tests/evaluation/test_chosen_images.py"

DATA: list[Mutant] = [
    *group(
        "memory", "evaluation/work.py", MEMORY,
        ("torch.split(samples.order(), task.size)[index::count]", "(samples.order(),)"),
    ),
    *group("memory", "records.py", MEMORY, ("in torch.split(order, HASHED_ROWS)", "in (order,)")),
    *group(
        "memory", "verbs/mix.py", MEMORY,
        ("torch.split(torch.arange(len(samples)), UNIT_TILES * plan.tile)", "(torch.arange(len(samples)),)"),
    ),
    *group(
        "memory", "training/validation.py", MEMORY,
        ("for start in range(first, end, TILES_AT_ONCE):", "for start in range(first, end, 2 * TILES_AT_ONCE):"),
        ("min(start + TILES_AT_ONCE, end) * TILE", "end * TILE"),
    ),
    *group("memory", "verbs/samples.py", MEMORY, ("Selection(part, chosen(", "part.select(chosen(")),
    *group(
        "choice", "data/choice.py", ORDER,
        ("str(sample).encode()", "hex(sample).encode()"),
        ("members.sort(key=hashes.__getitem__)", "members.sort()"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(r * n // len(members), n,"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(0, -(-(r + 1) * n // len(members)),"),
        ("(r * n // len(members), -(-(r + 1) * n // len(members)),", "(0, (2 * r + 1) * n // (2 * len(members)),"),
        ("hashes[place], place))", "b'', place))"),
        ("return ids[:images].argsort()", "return ids.argsort()[:images]"),
        ("return proportional_order(ids, labels)[:images]", "return proportional_order(ids[:images], labels[:images])"),
    ),
    *group(
        "choice", "evaluation/units.py", CHOSEN,
        ("samples.ids[samples.order()[: setting.gallery]]", "samples.ids.sort().values[: setting.gallery]"),
    ),
    *group(
        "choice", "evaluation/work.py", CHOSEN,
        ("torch.split(samples.order(), task.size)", "torch.split(samples.ids.argsort(), task.size)"),
    ),
    *group("choice", "evaluation/keys.py", CHOSEN, ('else {"choice": setting.choice}', "else {}")),
    *group(
        "choice", "batch.py", "tests/test_invariant.py",
        ("return self.ids.argsort()", "return torch.arange(len(self))"),
    ),
    *group("choice", "runs.py", CHOSEN, ('{"choice": "first"} | plan', "plan")),
    *group("choice", "recipes.py", CHOSEN, ('choice: Choice = "hashed"', 'choice: Choice = "first"')),
    *group(
        "choice", "verbs/samples.py", CHOSEN,
        ("plan.images, plan.choice)", "plan.images)"),
        ("*numbers, plan.choice,", "*numbers, 'first',"),
        ("if images is not None and images > len(part):", "if False:"),
    ),
    *group(
        "png16", "data/png16.py", "tests/data/test_png16.py",
        ("tall.astype(np.uint16) << 8 | small", "tall.astype(np.uint16) << 8 | tall"),
        ("((high, 1), (low, 2))", "((high, 2), (low, 1))"),
        ("zlib.crc32(name + data) != struct.unpack", "0 != 0 and struct.unpack"),
        ("decompressobj().decompress(data, size)", "decompressobj().decompress(data)"),
        ("if len(lines) != size:", "if False:"),
        ("if width * height > most_pixels:", "if False:"),
        ('if any(name == b"tRNS"', 'if any(name == b"none"'),
        ("if rows > 0 and columns > 0]", "]"),
        ("(4, 0, 8, 8), (0, 4, 4, 8)", "(0, 4, 4, 8), (4, 0, 8, 8)"),
    ),
    *group(
        "images", "data/image_file.py", FOLDER,
        ("return _deep(content, opened, form) if is_png16(content) else", "return"),
        ('if getattr(opened, "is_animated", False) and', "if False and"),
        ("if opened.mode not in _KNOWN and", "if False and"),
        ("formats=_FORMATS", "formats=None"),
        ("            upright = Image.alpha_composite(", "            Image.alpha_composite("),
        ("values = np.rint(values * (cover / 65535.0))", "values = values * 1.0"),
        ("np.rint(values @ _LUMA)", "np.rint(values.mean(2))"),
        ("if len(pixels) < form.channels:", "if False:"),
        ("turned = opened.getexif().get(_ORIENTATION, 1) in range(2, 9)", "turned = False"),
        ("transparent = int(np.asarray(seen.getchannel", "transparent = False and int(np.asarray(seen.getchannel"),
    ),
    *group(
        "folder", "data/folder.py", FOLDER,
        ("if every and not images:", "if False:"),
        ("if any(p.suffix.lower() in ENDINGS for p in path.rglob", "if False and any(p for p in path.rglob"),
        ('return name.startswith(".") or name in _LEFTOVERS', 'return name.startswith(".")'),
        ("self.skipped[_ending(path)] += 1", "pass"),
        ("self.skipped.update(_ending(p)", "self.skipped.update('' and _ending(p)"),
        ("return tuple(sorted(names, key=natural))", "return tuple(sorted(names))"),
        ("if len(set(given)) != len(given) or set(given) != set(found):", "if False:"),
        ("i.astype(np.uint16) * 257", "i.astype(np.uint16) * 256"),
        ("if len(self.sizes) > 1:", "if False:"),
        ('if of["oblong"]:', "if False:"),
        ('if 0 < of["grey"] < n:', "if False:"),
        ('if of["turned"]:', "if False:"),
        ('if of["transparent"]:', "if False:"),
        ('if 0 < of["16 bits"] < n:', "if False:"),
        ("sorted(classes, key=natural) != sorted(classes):", "sorted(classes, key=natural) and False:"),
        ("if len(inner) > 1 else", "if False else"),
    ),
    *group(
        "inspection", "data/inspection.py", INSPECTION,
        ("if len(empty) == len(classes) - 1:", "if False:"),
        ("elif empty:", "elif False:"),
        ("labels.setdefault(key, set()).add(label)", "labels.setdefault(key, set()).add(0)"),
        ("if torn:", "if False:"),
        ("if flat:", "if False:"),
        ("(rows == rows[:, :1]).all(1)", "(rows == 0).all(1)"),
        ("if key in known]", "if False]"),
        ("for other in splits[place + 1 :]:", "for other in splits[place + 2 :]:"),
        ("if 0 < largest <= DARK * full:", "if False:"),
    ),
    *group("inspection", "data/split.py", INSPECTION, ("65535 if images.dtype == torch.uint16 else 255", "255")),
    *group(
        "arrays", "data/arrays.py", "tests/data/test_npz.py tests/data/test_inspection.py",
        ("np.uint16 for p in parts.values())", "np.uint8 for p in parts.values())"),
        ("images.astype(np.uint16) * 257", "images.astype(np.uint16) * 256"),
        ("images.astype(np.float64) * 65535.0).astype(np.uint16)", "images * 255.0).astype(np.uint8)"),
        ("astype(images.dtype.newbyteorder(\"=\"), copy=False)", "view(images.dtype.newbyteorder(\"=\"))"),
    ),
    *group("arrays", "data/npz.py", INSPECTION, ("return learnable(assemble(", "return (assemble(")),
    *group(
        "arrays", "data/split.py", FOLDER, (".div_(full_scale(self.images))", ".div_(255.0)"),
    ),
    *group(
        "arrays", "data/dataset.py", FOLDER,
        ("dtype=torch.float64) / white", "dtype=torch.float64) / 255"),
    ),
    *group(
        "sense", "evaluation/sense.py", "tests/evaluation/test_sense.py",
        ("if diameter is None or threat.eps < diameter:", "if True:"),
        ("if diameter is None or threat.eps < diameter:", "if diameter is None or threat.eps <= diameter:"),
        ("pixels and math.sqrt(pixels)", "pixels and float(pixels)"),
        ('"l1": pixels and float(pixels)', '"l1": pixels and math.sqrt(pixels)'),
        ("if threat.eps / 255 < diameter else", "if False else"),
        ("if 0.5**n < alpha)", "if 0.5**n <= alpha)"),
        ("if 2.0 * 0.5**n <= alpha)", "if 0.5**n <= alpha)"),
        ("if votes < needed:", "if False:"),
        ("elif isinstance(found, SmoothingCertificate):", "elif False:"),
        ("yield from _within(getattr(value, field.name))", "pass"),
        ("for module in model.modules():", "for module in [model]:"),
    ),
    *group(
        "sense", "recipes.py", "tests/evaluation/test_sense.py",
        ("check_sense(*methods, recipe.training)", "check_sense(*methods)"),
        ("check_sense(*methods, recipe.training)", "check_sense(recipe.training)"),
    ),
    *group(
        "sense", "verbs/samples.py", "tests/evaluation/test_sense.py",
        ("check_sense(*methods, shape=target.dataset.input_shape)", "pass"),
        ("    check_votes(target.model)\n", ""),
    ),
    *group(
        "sense", "verbs/check.py", "tests/evaluation/test_sense.py",
        ("check_budget(threat, target.dataset.input_shape)", "pass"),
    ),
    *group(
        "sense", "threats.py", "tests/evaluation/test_sense.py",
        ("if steps and eps < 1 and", "if steps and"), ("if steps and eps", "if eps"), (" and not short:", ":"),
    ),
    *group(
        "observations", "report/observations.py", OBSERVED,
        ('if part.unit.get("stage", 0) == 0:', "if True:"),
        ("if n > 1 and len(set(labels.tolist())) == 1:", "if False:"),
        ("if n > 1 and len(decided) > 1 and len(set(decided.tolist())) == 1:", "if False:"),
        ("decided = answers[answers >= 0]", "decided = answers"),
        ("if abstained:", "if False:"),
        ('if part.facts.get("choice") == "hashed":', "if False:"),
        ("tuple(dict.fromkeys(said))", "tuple(said)"),
    ),
    *group("observations", "report/words.py", "tests/report/test_outputs.py",
           ('if 0 <= k < len(classes) else f"class {k}"', 'if k >= 0 else ""')),
    *group("observations", "report/words.py", NOTES, ("return [*said, *subject.notes]", "return said")),
    *group("observations", "cli/results.py", NOTES, ('(f"  note: {note}" for note in subject.notes)', "()")),
    *group("observations", "verbs/samples.py", NOTES, ('info["notes"] = list(target.notes)', "pass")),
    *group("observations", "cli/console.py", NOTES, ('line(note, mark="note:", colour=YELLOW)', "pass")),
    *group(
        "observations", "cli/options.py", NOTES,
        ('"first" if given.pop("first", None) else None', 'None if given.pop("first", None) else None'),
    ),
]  # fmt: skip
