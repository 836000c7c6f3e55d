"""Conditions of bindings and denies: CEL expressions over the call, the resource and the caller.

A part of CEL whose cost is bounded, since it is evaluated on the event loop and its author may administer one vault only: no
regular expressions, macros with a simple inside, plain strings, and a length that fits on a few lines.  Whatever goes wrong in
an evaluation is a failure, never an answer: the caller of `holds` decides what a failure means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.caller import NO_CLAIMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import cel

MAX_CONDITION_CHARS: Final = 1_000
MAX_CLAIM_VALUES: Final = 300
"""Values in the claims, those in lists and maps included; with more of them every condition on claims fails."""
MAX_CLAIM_DEPTH: Final = 32
MAX_ADDITIONS: Final = 8
NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})

FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "request": frozenset({"time", "method", "permission"}),
        "resource": frozenset({"name", "labels"}),
        "principal": frozenset(),
        "claims": frozenset(),
    }
)
"""The variables, and the fields of those that have a closed list of them."""
MACROS: Final = frozenset({"all", "exists", "exists_one"})
"""Not map and filter, nor what is dear within one of these: a condition costs milliseconds at worst, whatever the claims."""
TIME_PARTS: Final = frozenset(
    {
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
    }
)
FUNCTIONS: Final = TIME_PARTS | {
    "contains",
    "double",
    "duration",
    "endsWith",
    "int",
    "size",
    "startsWith",
    "string",
    "timestamp",
}
_OPERATOR = re.compile(r"[^A-Za-z]+|_\?_:_|@in|@not_strictly_false|_\[_\]")
_TOKEN = re.compile(
    r"""\s+|"[^"\\\r\n]*"|'[^'\\\r\n]*'|[A-Za-z_][A-Za-z0-9_]*|[0-9][0-9A-Za-z.]*|&&|\|\||[=!<>]=|[-+*/%<>!?:,.()\[\]{}]"""
)


class ConditionInvalid(Exception):
    """The expression is no condition; the text says why and carries nothing of it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a condition may ask of one call, besides principal, permission and the resource's name."""

    method: str
    now_us: int
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)


class Condition:
    """A compiled condition."""

    __slots__ = ("_program", "needs_labels", "text", "variables")

    def __init__(self, text: str, program: cel.Program, variables: tuple[str, ...], needs_labels: bool) -> None:
        self.text = text
        self.variables = variables
        self.needs_labels = needs_labels
        self._program = program

    def holds(self, question: Question) -> bool | None:
        """True or False as it evaluates; None when it fails: a missing claim or label, types that do not fit, no boolean."""
        try:
            answer = self._program.execute(question.context(self.variables))
        except Exception:  # whatever the evaluator raises means the same: there is no answer
            return None
        except BaseException as error:
            # The evaluator is Rust: a fault of its own arrives as this, which is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            return None
        return answer if answer is True or answer is False else None


class Question:
    """One decision to make; its values are handed to the evaluator once, for all conditions that are asked."""

    __slots__ = ("_context", "_facts", "_given", "_permission", "_principal", "_resource")

    def __init__(self, principal: str, permission: str, resource: str, facts: Facts) -> None:
        self._principal = principal
        self._permission = permission
        self._resource = resource
        self._facts = facts
        self._context: cel.Context | None = None
        self._given: set[str] = set()

    def context(self, variables: tuple[str, ...]) -> cel.Context:
        """The evaluator's context with at least these variables in it."""
        context = self._context
        if context is None:
            import cel

            context = self._context = cel.Context()
        for name in variables:
            if name not in self._given:
                context.add_variable(name, self._value(name))
                self._given.add(name)
        return context

    def _value(self, name: str) -> Any:
        facts = self._facts
        if name == "request":
            time = datetime.fromtimestamp(facts.now_us // 1_000_000, UTC).replace(microsecond=facts.now_us % 1_000_000)
            return {"time": time, "method": facts.method, "permission": self._permission}
        if name == "resource":
            return {"name": self._resource, "labels": dict(facts.labels)}
        if name == "claims":
            return bounded(facts.claims)
        return self._principal


def bounded(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The claims, or ValueError when there are more of them than a condition may be made to look through."""
    values = 0
    level: list[Any] = [claims]
    for _ in range(MAX_CLAIM_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, (list, tuple)):
                below += value
            elif hasattr(value, "values"):
                below += value.values()
        values += len(below)
        if values > MAX_CLAIM_VALUES:
            break
        if not below:
            return dict(claims)
        level = below
    raise ValueError("too many claims")


@lru_cache(maxsize=4_096)
def compile_condition(text: str) -> Condition:
    """Compile a condition, or raise ConditionInvalid.  Cached: a policy is compiled anew at every change of it."""
    if len(text) > MAX_CONDITION_CHARS:
        raise ConditionInvalid(f"may be at most {MAX_CONDITION_CHARS:,} characters")
    tokens = list(_tokens(text))
    if not tokens:
        raise ConditionInvalid("is empty; leave it out")
    bound = _check_macros(tokens)
    needs_labels = _check_fields(tokens)
    # Here, since the evaluator takes 0.1 s to import, and most servers have no condition.
    import cel

    try:
        program = cel.compile(text)
        named, called = program.variables(), program.functions()
    except Exception:
        raise ConditionInvalid("is not a CEL expression") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ConditionInvalid("is not a CEL expression") from None
    if any(name not in FIELDS and name not in bound for name in named):
        raise ConditionInvalid(f"may use {', '.join(FIELDS)} and no other variable")
    if any(name not in FUNCTIONS and not _OPERATOR.fullmatch(name) for name in called):
        raise ConditionInvalid(f"may call {', '.join(sorted(FUNCTIONS | MACROS))} and has(), and no other function")
    return Condition(text, program, tuple(name for name in named if name in FIELDS), needs_labels)


def _tokens(text: str) -> Iterator[str]:
    if '"""' in text or "'''" in text:
        raise ConditionInvalid("may hold plain strings only, with one quote on each side")
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or text.startswith("//", at):
            raise ConditionInvalid(
                "has a character that is no part of a condition; strings are plain, without backslashes"
            )
        at = match.end()
        if not match[0].isspace():
            yield match[0]


def _check_macros(tokens: list[str]) -> set[str]:
    """Return the variables that macros bind; raise for a macro within a macro, whose cost would have no bound."""
    if tokens.count("+") > MAX_ADDITIONS:
        raise ConditionInvalid(f"may have at most {MAX_ADDITIONS} additions")
    bound: set[str] = set()
    depth = 0
    within = 0
    for at, token in enumerate(tokens):
        if token in {"(", "[", "{"}:
            depth += 1
        elif token in {")", "]", "}"}:
            depth -= 1
            if depth < within:
                within = 0
        # A prefix would change how the evaluator reads the string, and what it takes for its end.
        if token[0] in "\"'" and at and re.fullmatch(r"[rRbB]{1,2}", tokens[at - 1]):
            raise ConditionInvalid("may hold plain strings only, without a prefix")
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in TIME_PARTS and tokens[at + 1 : at + 3] != ["(", ")"]:
            raise ConditionInvalid("may take parts of a time in UTC only, such as request.time.getHours()")
        if token in {"map", "filter"} and following == "(":
            raise ConditionInvalid("may use all, exists and exists_one, but neither map nor filter")
        if within and (token in {"claims", "+"} or (token in MACROS and following == "(")):
            raise ConditionInvalid("may not have claims, + or a macro within all, exists or exists_one")
        if token in MACROS and following == "(":
            within = depth + 1
            if at + 2 < len(tokens):
                if tokens[at + 2] in FIELDS:
                    raise ConditionInvalid("may not use the name of a variable for another in a macro")
                bound.add(tokens[at + 2])
    return bound


def _check_fields(tokens: list[str]) -> bool:
    """Whether labels are asked for; raise for a field that does not exist, which would fail at every decision."""
    needs_labels = False
    for at, token in enumerate(tokens):
        known = FIELDS.get(token, frozenset())
        if not known or (at and tokens[at - 1] == "."):
            continue
        name = tokens[at + 2] if tokens[at + 1 : at + 2] == ["."] and at + 2 < len(tokens) else ""
        if name not in known:
            raise ConditionInvalid(f"may use {', '.join(f'{token}.{one}' for one in sorted(known))} of {token}")
        needs_labels |= (token, name) == ("resource", "labels")
    return needs_labels
