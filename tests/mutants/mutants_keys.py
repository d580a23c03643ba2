"""Guards of keys: what an identity sees, what a fingerprint compares, what records share."""

from __future__ import annotations

from mutant import Mutant, group

IDENTITY = "tests/test_identity.py"
ASKED = "tests/evaluation/test_fingerprint.py"
MANY = "tests/evaluation/test_many_classes.py"

KEYS: list[Mutant] = [
    *group(
        "identity", "identity.py", IDENTITY,
        ("values.append(tuple(_content(cell) for cell in function.__closure__ or ()))", "pass"),
        ("[function.__defaults__, function.__kwdefaults__]", "[]"),
        ("[text, *values, *_globals(function)]", "[text, *values]"),
        ("{hashlib.sha256(bytes_of(value)).hexdigest()}", "{0}"),
        ("inner = file.imports() if", "inner = [] if"),
        ("waiting: list[Any] = [root, *_global_patches()] if", "waiting: list[Any] = [root] if"),
        ("found.foreign or found.digest != made", "found.foreign"),
        ("found.foreign or found.digest != made", "found.digest != made"),
        ("return shadowed or hooked or", "return shadowed or"),
        ("' '.join(sorted(", "' '.join(list("),
        ("text = file if file is not None and sources.says(file, code) else code",
         "text = file if file is not None else code"),
    ),
    *group(
        "identity", "identity.py", IDENTITY,
        ('{"environ", "getenv"} & set(names)', "False"),
        ("    known = modules | space\n", "    known = space\n"),
        ("if isinstance(c, str) and c.replace", "if False and c.replace"),
        ("if sources.is_own(value) or type(value) in PLAIN]", "if sources.is_own(value)]"),
        ("if sources.is_own(value) or type(value) in PLAIN]", "if type(value) in PLAIN]"),
        ("[file, *content, *above, *cls.__bases__]", "[file, *content, *cls.__bases__]"),
        ("ContextVar: lambda value: (\"variable\", [value.name, value.get(None)]),\n", ""),
        ("generator {value.initial_seed()}", "generator"),
        ("private + name if", "name if"),
        ('getattr(constants, "const_mapping", {})', "{}"),
        ('PASSING_NAMES.sub("", attributes)]', '""]'),
        ('return [PASSING_NAMES.sub("", code),', "return [code,"),
        ('PASSING_NAMES.sub("", attributes)]', "attributes]"),
    ),
    *group(
        "fingerprint", "evaluation/fingerprint.py", ASKED,
        ("return bool(np.array_equal(one, other, equal_nan=True))", "pass"),
        ("with fenced(0, devices), frozen(model), torch.no_grad():", "with frozen(model), torch.no_grad():"),
        ("return [model, *(m for m in inner if isinstance(m, nn.Module))]", "return [model]"),
        ("near = np.abs(one - other) <= allowed", "near = np.abs(one - other) <= 10.0 * allowed"),
        ("if np.array_equal(first, second, equal_nan=True):", "if True:"),
    ),
    *group(
        "fingerprint", "evaluation/work.py", ASKED, ('about | {"answers": asked.id}', 'about | {"answers": ""}'),
    ),
    *group(
        "shared evidence", "records.py", MANY,
        ("    if not whole:\n", "    if False:\n"),
        ("@lru_cache(maxsize=4)\n", ""),
        ('re.fullmatch("[0-9a-f]{16}", key) is None', "False"),
        ("v.size <= INLINE", "True"),
    ),
    *group("shared evidence", "certificates/lipschitz.py", MANY, ("if speeds is None:\n", "if True:\n")),
]  # fmt: skip
