"""Every tensor is made on the device of its inputs: a rule over the source, since CI has no second device."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hauberk"
FACTORIES = {
    "arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "logspace", "normal", "ones", "rand",
    "randint", "randn", "randperm", "tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
# where all is on the CPU: data and choices of images, what is measured again, proofs and their bounds, the suites
ON_THE_CPU = (
    "audit/", "conformance/", "data/", "comparison", "verbs/", "evaluation/lipschitz_report.py",
    "evaluation/preflight.py", "evaluation/nuts.py", "evaluation/alpha_steps.py", "certificates/base.py",
    "certificates/deployed.py",
    "layers/entry_norms.py", "layers/freezing.py", "layers/lipschitz.py", "layers/norms.py", "layers/pooling.py",
)  # fmt: skip
MARK = ("# on the CPU", "# where it was drawn")  # with the reason; on the line of the call


def unplaced(text: str) -> Iterator[tuple[int, str]]:
    """The calls that make a tensor somewhere, and do not say where.

    A call says so by ``device=``, or by moving what it made at once (``.to``, ``.new_...`` and ``..._like`` need
    neither).  What an ``__init__`` makes moves with the module that it belongs to.
    """
    tree, lines = ast.parse(text), text.splitlines()
    moved = {
        id(call.func.value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "to"
    }
    made = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
        for node in ast.walk(function)
    }
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        owner, name = call.func.value, call.func.attr
        if not (isinstance(owner, ast.Name) and owner.id == "torch" and name in FACTORIES):
            continue
        placed = id(call) in moved or id(call) in made or any(k.arg == "device" for k in call.keywords)
        if not placed and not any(mark in line for line in lines[call.lineno - 1 : call.end_lineno] for mark in MARK):
            yield call.lineno, ast.unparse(call)


def test_every_tensor_is_made_on_the_device_of_its_inputs() -> None:
    files = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
    assert all(any(name.startswith(room) for name in files) for room in ON_THE_CPU)
    checked = {name: path for name, path in files.items() if not name.startswith(ON_THE_CPU)}
    found = [f"{name}:{line}: {call}" for name, path in checked.items() for line, call in unplaced(path.read_text())]
    assert found == [], f"say device=, or why not: {MARK[0]}: ..."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("torch.zeros(3)", 1),
        ("f(torch.arange(n) % 2)", 1),
        ("torch.zeros(3, device=x.device)", 0),
        ("torch.zeros(3).to(x)", 0),
        ("torch.zeros(3).double().to(x)", 1),
        ("torch.zeros_like(x) + x.new_zeros(3)", 0),
        ("class A:\n    def __init__(self):\n        self.a = torch.zeros(3)", 0),
        ("class A:\n    def forward(self):\n        self.a = torch.zeros(3)", 1),
        ("torch.zeros(3)  # on the CPU: a count", 0),
    ],
)
def test_the_rule(text: str, found: int) -> None:
    assert len(list(unplaced(text))) == found
