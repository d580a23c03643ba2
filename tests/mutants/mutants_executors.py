"""Wrong versions of the executors."""

from mutant import Mutant, group

PROCESSES = "tests/executors/test_processes.py"
PACKING = "tests/executors/test_packing.py"

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
        "executors", "errors.py", PROCESSES,
        ("        return type(self), (self.message, self.hint)", "        return type(self), (self.message,)"),
    ),
]  # fmt: skip
