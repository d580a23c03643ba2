"""Wrong versions of executors and devices."""

from mutant import Mutant, group

PROCESSES = "tests/executors/test_processes.py"
PACKING = "tests/executors/test_packing.py"
DEVICES = "tests/test_devices.py"

EXECUTORS: list[Mutant] = [
    *group(
        "executors", "executors/processes.py", PROCESSES,
        ("if order.deaths >= DEATHS:", "if False:"),
        ("        os._exit(1)", "        pass"),
        ("_send(connection, outcome(work, unit))", "_send(connection, (work(unit), None))"),
        ("                    self._bury(worker)\n", "                    raise\n"),
    ),
    *group(
        "executors", "executors/packing.py", PACKING,
        ("    found.arrived()\n", ""),
        ("    if version != __version__:\n", "    if False:\n"),
        ("    sys.path += [folder for folder in folders if folder not in sys.path]\n", ""),
        ("parametrize.is_parametrized(value):", "False:"),
    ),
    *group("executors", "executors/ray.py", "tests/executors/test_ray.py", ("max_retries=DEATHS - 1", "max_retries=0")),
    *group(
        "executors", "evaluation/fingerprint.py", PACKING,
        ("if not agree(asked.mine, _part(model, asked.images)):", "if False:"),
    ),
    *group(
        "devices", "devices.py", DEVICES,
        ('if precision == "tf32" and where.type != "cuda":', "if False:"),
        ("setattr(holder, name, kept)", "pass"),
        ('"cuda" if torch.cuda.is_available() else "cpu"', '"cpu"'),
    ),
    *group(
        "devices", "evaluation/keys.py", DEVICES,
        ('{"device": where} if where != "cpu" else {}', "{}"),
        ('{"precision": setting.precision} if setting.precision != "float32" else {}', "{}"),
    ),
    *group(
        "devices", "verbs/certify.py", DEVICES,
        ('"cpu" if on_cpu else plan.device', "plan.device"),
        ('if plan.precision != "float32":', "if False:"),
    ),
    *group(
        "devices", "verify/facts.py", DEVICES,
        ('elif told and part.facts.get("proof") == "deterministic":', "elif False:"),
        ('elif "precision" in told and part.kind == "certificate":', "elif False:"),
        ("    yield from _device_problems(part)\n", ""),
    ),
    *group(
        "devices", "verify/plans.py", DEVICES,
        ('for name in ("device", "precision") if name in unit}', "for name in () if name in unit}"),
    ),
    *group(
        "devices", "randomness.py", "tests/test_randomness.py",
        ('int.from_bytes(_key(seed, sample_id, purpose), "little")', "seed"),
        ('if at.type == "cpu" else DeviceStream', "if True else DeviceStream"),
    ),
    *group("devices", "recipes.py", DEVICES, ('Field("auto", exclude=True)', '"auto"')),
    *group(
        "executors", "errors.py", PROCESSES,
        ("        return type(self), (self.message, self.hint)", "        return type(self), (self.message,)"),
    ),
]  # fmt: skip
