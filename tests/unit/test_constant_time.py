"""Nothing that authenticates is compared with `==`: the time it takes would tell how much of it was right."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "vaultd"
AUTHENTICATES = re.compile(r"(^|_)(mac|tag|signature|secret|passphrase|digest|hmac)s?$")


def named(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return ""


def comparisons_of_authenticators(source: str) -> list[int]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            if any(AUTHENTICATES.search(named(side)) for side in (node.left, *node.comparators)):
                found.append(node.lineno)
    return found


def test_engine_and_backends_compare_authenticators_in_constant_time():
    offences = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for folder in ("engine", "backends", "interceptors", "services")
        for path in (PACKAGE / folder).rglob("*.py")
        for line in comparisons_of_authenticators(path.read_text())
    }
    assert offences == set()


def test_the_search_finds_such_a_comparison():
    assert comparisons_of_authenticators("if given_mac == mac:\n    pass") == [1]
