"""Who may do what: roles bound to principals on resources.  Default deny; an explicit deny wins over every binding.

A binding or a deny on a resource covers it and all below it, by whole segments: `vaults/a` covers `vaults/a/keys/x` and
never `vaults/ab`; `vaults` covers the collection and every vault; `/` covers everything, the server itself included.
There are no globs, no templates, no nested groups and no names with a meaning of their own.

A binding or a deny may have a condition (conditions.py).  One that cannot be evaluated fails closed: the binding does not
apply, and the deny does.

Names are compared as they stand, so each has one spelling and every other is refused here, when the policy is read: a
policy that names `SPIFFE://Example.org/app` would otherwise grant to nobody, or worse, deny nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vaultd.engine.conditions import ConditionInvalid, Facts, Question, compile_condition
from vaultd.engine.permissions import BUILT_IN_ROLES, PERMISSIONS
from vaultd.errors import InvalidArgument
from vaultd.names import ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence

    from vaultd.engine.conditions import Condition

MAX_ROLES: Final = 1_000
MAX_GROUPS: Final = 1_000
MAX_BINDINGS: Final = 10_000
MAX_DENIES: Final = 10_000
MAX_CONDITIONS: Final = 1_000
MAX_ASKED: Final = 20
"""Conditions that one decision asks, of denies and of bindings each.  Beyond that a deny applies and a binding does not."""
MAX_MEMBERS: Final = 10_000
MAX_MEMBERS_IN_ALL: Final = 1_000_000
MAX_PRINCIPAL_CHARS: Final = 2_048

MAX_CACHED_DECISIONS: Final = 100_000
MAX_COMPILED_GRANTS: Final = 1_000_000

ROOT: Final = "/"
GROUP_PREFIX: Final = "group:"

_NAME = re.compile(ID)
_PRINCIPAL = re.compile(
    # The SPIFFE ID standard, section 2: a lower-case trust domain, a path of segments that are not empty, `.` or `..`.
    r"spiffe://[a-z0-9][a-z0-9._-]{0,254}(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+"
    # RFC 1123 in lower case, no final dot; the last label is not a number, or the name would be an IPv4 address.
    rf"|dns:(?=.{{1,253}}\Z)(?:{ID}\.)*(?![0-9]+\Z){ID}"
    # The issuer's id has no colon, so a `sub` with colons (Kubernetes) still parses in one way only.
    rf"|jwt:{ID}:[!-~]{{1,255}}"
)
_POLICY_RESOURCE = re.compile(rf"/|vaults(?:/{ID}(?:/(?:keys|secrets)/{ID})?)?")
_REQUEST_RESOURCE = re.compile(rf"/|vaults(?:/{ID})*")


def is_principal(value: str) -> bool:
    """Whether this is a principal in its one spelling: `spiffe://domain/path`, `dns:name` or `jwt:issuer:sub`."""
    return len(value) <= MAX_PRINCIPAL_CHARS and _PRINCIPAL.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Role:
    """A name for a set of permissions."""

    name: str
    permissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A name for a set of principals.  Groups hold no groups."""

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """Gives a role to principals and `group:` names on a resource and all below it, while its condition holds, if it has one."""

    members: tuple[str, ...]
    role: str
    resource: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """Takes permissions from principals and `group:` names on a resource and all below it, whatever is bound.

    With a condition it does so unless that is evaluated and does not hold.
    """

    members: tuple[str, ...]
    permissions: tuple[str, ...]
    resource: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy.  One that exists is valid: every name in it is well formed and refers to something.

    Raises InvalidArgument, reason POLICY_INVALID, whose field is the path of a fault, such as `bindings[2].role`.
    """

    roles: tuple[Role, ...] = ()
    groups: tuple[Group, ...] = ()
    bindings: tuple[Binding, ...] = ()
    denies: tuple[Deny, ...] = ()

    def __post_init__(self) -> None:
        for path, size, most in (
            ("roles", len(self.roles), MAX_ROLES),
            ("groups", len(self.groups), MAX_GROUPS),
            ("bindings", len(self.bindings), MAX_BINDINGS),
            ("denies", len(self.denies), MAX_DENIES),
        ):
            if size > most:
                raise _invalid(path, f"may hold at most {most:,} items")
        lists = (g.members for g in self.groups), (b.members for b in self.bindings), (d.members for d in self.denies)
        if sum(map(len, chain(*lists))) > MAX_MEMBERS_IN_ALL:
            raise _invalid("policy", f"may name at most {MAX_MEMBERS_IN_ALL:,} members in all; use groups")
        roles = _check_names([role.name for role in self.roles], "roles")
        if not roles.isdisjoint(BUILT_IN_ROLES):
            index = next(i for i, role in enumerate(self.roles) if role.name in BUILT_IN_ROLES)
            raise _invalid(f"roles[{index}].name", "is the name of a built-in role; choose another")
        for i, role in enumerate(self.roles):
            _check_set(role.permissions, f"roles[{i}].permissions", PERMISSIONS.__contains__, _NO_PERMISSION, least=1)
        groups = {GROUP_PREFIX + name for name in _check_names([group.name for group in self.groups], "groups")}
        for i, group in enumerate(self.groups):
            _check_set(group.members, f"groups[{i}].members", is_principal, _NO_PRINCIPAL, least=0)

        def is_member(value: str) -> bool:
            return value in groups or is_principal(value)

        roles |= BUILT_IN_ROLES.keys()
        for i, binding in enumerate(self.bindings):
            _check_set(binding.members, f"bindings[{i}].members", is_member, _NO_MEMBER, least=1)
            if binding.role not in roles:
                raise _invalid(f"bindings[{i}].role", "names no role of this policy and no built-in role")
            _check_resource(binding.resource, f"bindings[{i}].resource")
        for i, deny in enumerate(self.denies):
            _check_set(deny.members, f"denies[{i}].members", is_member, _NO_MEMBER, least=1)
            _check_set(deny.permissions, f"denies[{i}].permissions", PERMISSIONS.__contains__, _NO_PERMISSION, least=1)
            _check_resource(deny.resource, f"denies[{i}].resource")
        conditional = [(f"bindings[{i}].condition", b.condition) for i, b in enumerate(self.bindings) if b.condition]
        conditional += [(f"denies[{i}].condition", d.condition) for i, d in enumerate(self.denies) if d.condition]
        if len(conditional) > MAX_CONDITIONS:
            raise _invalid("policy", f"may have at most {MAX_CONDITIONS:,} conditions")
        for path, condition in conditional:
            _compile(condition, path)

    @classmethod
    def parse(cls, document: object) -> Policy:
        """Read a document as YAML or JSON load it.  Missing lists are empty; nothing unknown is passed over."""
        top = _fields(document, "policy", optional=("roles", "groups", "bindings", "denies"))
        return cls(
            roles=tuple(
                Role(_text(item["name"], f"{path}.name"), _texts(item["permissions"], f"{path}.permissions"))
                for path, item in _items(top, "roles", ("name", "permissions"))
            ),
            groups=tuple(
                Group(_text(item["name"], f"{path}.name"), _texts(item["members"], f"{path}.members"))
                for path, item in _items(top, "groups", ("name", "members"))
            ),
            bindings=tuple(
                Binding(
                    _texts(item["members"], f"{path}.members"),
                    _text(item["role"], f"{path}.role"),
                    _text(item["resource"], f"{path}.resource"),
                    _condition(item, path),
                )
                for path, item in _items(top, "bindings", ("members", "role", "resource"), ("condition",))
            ),
            denies=tuple(
                Deny(
                    _texts(item["members"], f"{path}.members"),
                    _texts(item["permissions"], f"{path}.permissions"),
                    _text(item["resource"], f"{path}.resource"),
                    _condition(item, path),
                )
                for path, item in _items(top, "denies", ("members", "permissions", "resource"), ("condition",))
            ),
        )

    def to_document(self) -> dict[str, list[dict[str, Any]]]:
        """Return the one document of this policy: all four lists, in order.  `parse` gives an equal policy back."""
        return {
            "roles": [{"name": r.name, "permissions": list(r.permissions)} for r in self.roles],
            "groups": [{"name": g.name, "members": list(g.members)} for g in self.groups],
            "bindings": [
                {"members": list(b.members), "role": b.role, "resource": b.resource} | _conditional(b)
                for b in self.bindings
            ],
            "denies": [
                {"members": list(d.members), "permissions": list(d.permissions), "resource": d.resource}
                | _conditional(d)
                for d in self.denies
            ],
        }


def seed_policy(admins: Sequence[str], document: object | None) -> Policy:
    """Return the first policy of a server: the document's, if there is one, and `admin` on `/` for the administrators.

    The administrators' binding comes last, so that `bindings[2]` in a reason is the one that the operator wrote there.
    """
    _check_set(tuple(admins), "admins", is_principal, _NO_PRINCIPAL, least=1)
    policy = Policy() if document is None else Policy.parse(document)
    return Policy(policy.roles, policy.groups, (*policy.bindings, Binding(tuple(admins), "admin", ROOT)), policy.denies)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question, and the binding or deny that decided it.

    bound_on: the resource of the binding that allows; empty for a refusal.
    """

    allowed: bool
    reason: str
    bound_on: str = ""

    @property
    def silent(self) -> bool:
        """Whether the policy neither gives nor denies, so that a grant may give."""
        return self == _NO_BINDING


_NO_BINDING: Final = Decision(False, "no binding")
_NO_RESOURCE: Final = Decision(False, "not a resource name")


class _Asked(NamedTuple):
    """A conditional entry: what it holds, its condition, and the decision that it makes when it applies."""

    permissions: frozenset[str]
    condition: Condition
    decision: Decision


@dataclass(frozen=True, slots=True)
class Conditional:
    """A decision that depends on conditions: on one call's facts, so only this much of it is kept.

    needs_labels: whether it asks for the resource's labels.
    """

    principal: str
    permission: str
    resource: str
    denies: tuple[_Asked, ...]
    bindings: tuple[_Asked, ...]
    otherwise: Decision
    needs_labels: bool

    def settle(self, facts: Facts) -> Decision:
        """The decision for these facts.  A deny applies unless its condition is evaluated and false; a binding only if true."""
        question = Question(self.principal, self.permission, self.resource, facts)
        for deny in self.denies:
            if deny.condition.holds(question) is not False:
                return deny.decision
        if self.otherwise is _NO_BINDING:
            for binding in self.bindings:
                if binding.condition.holds(question) is True:
                    return binding.decision
        return self.otherwise

    def fail(self) -> Decision:
        """The decision when nothing is known: as if every condition had failed."""
        return self.denies[0].decision if self.denies else self.otherwise


@dataclass(frozen=True, slots=True)
class _Grants:
    """All that a policy says of one principal: resource -> permission -> decision, and what it says with conditions."""

    allow: dict[str, dict[str, Decision]]
    deny: dict[str, dict[str, Decision]]
    allow_if: dict[str, list[_Asked]]
    deny_if: dict[str, list[_Asked]]


class PolicyEngine:
    """Decides by one policy.  Make another engine when the policy changes: no decision outlives its policy.

    What the policy says of a principal is gathered when that principal first asks: with a large group in every binding,
    the product of members and bindings would be too much to keep for all.  Not thread-safe; it never waits.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._roles = dict(BUILT_IN_ROLES) | {role.name: frozenset(role.permissions) for role in policy.roles}
        self._bindings = _indexes_by_member([binding.members for binding in policy.bindings])
        self._denies = _indexes_by_member([deny.members for deny in policy.denies])
        # Principals only: a caller that managed to be called `group:ops` is not a key here, and gets nothing.
        self._memberships: dict[str, list[str]] = {}
        for member in self._bindings.keys() | self._denies.keys():
            if not member.startswith(GROUP_PREFIX):
                self._memberships[member] = [member]
        for group in policy.groups:
            for member in group.members:
                self._memberships.setdefault(member, []).append(GROUP_PREFIX + group.name)
        self._grants: dict[str, _Grants] = {}
        self._grants_held = 0
        self._decisions: dict[tuple[str, str, str], Decision | Conditional] = {}

    @property
    def policy(self) -> Policy:
        """The policy that this engine decides by."""
        return self._policy

    @property
    def roles(self) -> Mapping[str, frozenset[str]]:
        """Every role, the built-in ones too."""
        return self._roles

    @property
    def principals(self) -> KeysView[str]:
        """Every principal that the policy names, as a member of a binding, a deny or a group."""
        return self._memberships.keys()

    def memberships(self, principal: str) -> tuple[str, ...]:
        """As which members the policy knows a principal: its groups, and itself where an entry names it."""
        memberships = self._memberships.get(principal, ())
        return tuple(member for member in memberships if member in self._bindings or member in self._denies)

    def entries(self, principal: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The indexes of the bindings and of the denies that name the principal, by itself or through a group."""
        memberships = self._memberships.get(principal, [])
        return tuple(_merged(self._bindings, memberships)), tuple(_merged(self._denies, memberships))

    def via(self, principal: str, members: Iterable[str]) -> str:
        """How the principal is one of these members: itself (empty), or the first `group:` that holds it."""
        if principal in members:
            return ""
        memberships = set(self._memberships.get(principal, ()))
        return next((member for member in members if member in memberships), "")

    def allows(self, principal: str, permission: str, resource: str, facts: Facts | None = None) -> bool:
        """Whether the principal holds the permission on the resource, a name that has been parsed."""
        return self.decide(principal, permission, resource, facts).allowed

    def holds_some(self, principal: str, permissions: Iterable[str], resource: str) -> bool:
        """Whether some binding may give the principal one of the permissions on the resource, above it or below it.

        For calls that show, of what is there, only what the caller may see: denies and conditions are looked at then.
        """
        memberships = self._memberships.get(principal)
        if memberships is None:
            return False
        wanted = frozenset(permissions)
        grants = self._grants.get(principal) or self._gather(principal, memberships)
        above = covering_of(resource)
        below = resource if resource == ROOT else resource + "/"

        def touches(bound_on: str) -> bool:
            return bound_on in above or resource == ROOT or bound_on.startswith(below)

        return any(touches(at) and not wanted.isdisjoint(held) for at, held in grants.allow.items()) or any(
            touches(at) and any(not wanted.isdisjoint(asked.permissions) for asked in some)
            for at, some in grants.allow_if.items()
        )

    def decide(self, principal: str, permission: str, resource: str, facts: Facts | None = None) -> Decision:
        """Like `allows`, with the reason: the widest resource decides, and there the first entry of the policy.

        Without facts every condition fails: no conditional binding applies, and every conditional deny does.
        """
        found = self.look_up(principal, permission, resource)
        if type(found) is Decision:
            return found
        assert isinstance(found, Conditional)  # noqa: S101  # the other of the two
        return found.fail() if facts is None else found.settle(facts)

    def look_up(self, principal: str, permission: str, resource: str) -> Decision | Conditional:
        """The decision, or what it depends on.  Kept until the policy changes."""
        key = (principal, permission, resource)
        found = self._decisions.get(key)
        if found is None:
            memberships = self._memberships.get(principal)
            if memberships is None:  # Not kept: strangers must not push out the decisions of callers.
                return _NO_BINDING
            found = self._evaluate(principal, memberships, permission, resource)
            if len(self._decisions) >= MAX_CACHED_DECISIONS:
                self._decisions.clear()
            self._decisions[key] = found
        return found

    def _evaluate(
        self, principal: str, memberships: list[str], permission: str, resource: str
    ) -> Decision | Conditional:
        # Callers pass parsed names; `..` or an empty segment here is a defect of ours, and must not widen anything.
        if not _REQUEST_RESOURCE.fullmatch(resource):
            return _NO_RESOURCE
        grants = self._grants.get(principal) or self._gather(principal, memberships)
        covering = covering_of(resource)
        decided = _NO_BINDING
        for table in (grants.deny, grants.allow) if grants.deny else (grants.allow,):
            for prefix in covering:
                permissions = table.get(prefix)
                if permissions is not None and permission in permissions:
                    decided = permissions[permission]
                    break
            if decided is not _NO_BINDING:
                break
        if not (grants.deny_if or grants.allow_if) or (decided is not _NO_BINDING and not decided.allowed):
            return decided
        denies = _asked(grants.deny_if, covering, permission)
        bindings = () if decided.allowed else _asked(grants.allow_if, covering, permission)
        if not denies and not bindings:
            return decided
        if len(denies) > MAX_ASKED:
            decided = denies[MAX_ASKED].decision
        denies, bindings = denies[:MAX_ASKED], bindings[:MAX_ASKED]
        needs_labels = any(asked.condition.needs_labels for asked in denies + bindings)
        return Conditional(principal, permission, resource, denies, bindings, decided, needs_labels)

    def _gather(self, principal: str, memberships: list[str]) -> _Grants:
        grants = _Grants({}, {}, {}, {})
        for i in _merged(self._bindings, memberships):
            binding = self._policy.bindings[i]
            reason = f"bindings[{i}] gives {binding.role} on {binding.resource}"
            decision = Decision(True, reason, binding.resource)
            permissions = self._roles[binding.role]
            if binding.condition:
                asked = _Asked(permissions, compile_condition(binding.condition), decision)
                grants.allow_if.setdefault(binding.resource, []).append(asked)
                continue
            held = grants.allow.setdefault(binding.resource, {})
            for permission in permissions:
                held.setdefault(permission, decision)
        for i in _merged(self._denies, memberships):
            rule = self._policy.denies[i]
            decision = Decision(False, f"denies[{i}] on {rule.resource}")
            if rule.condition:
                asked = _Asked(frozenset(rule.permissions), compile_condition(rule.condition), decision)
                grants.deny_if.setdefault(rule.resource, []).append(asked)
                continue
            held = grants.deny.setdefault(rule.resource, {})
            for permission in rule.permissions:
                held.setdefault(permission, decision)
        self._grants_held += sum(map(len, chain(grants.allow.values(), grants.deny.values())))
        self._grants_held += sum(map(len, chain(grants.allow_if.values(), grants.deny_if.values())))
        if self._grants_held > MAX_COMPILED_GRANTS:
            self._grants.clear()
            self._grants_held = 0
        self._grants[principal] = grants
        return grants


def _asked(table: dict[str, list[_Asked]], covering: list[str], permission: str) -> tuple[_Asked, ...]:
    return tuple(asked for prefix in covering for asked in table.get(prefix, ()) if permission in asked.permissions)


def covering_of(resource: str) -> list[str]:
    """Return `/` and every prefix of whole segments, the resource itself last."""
    covering = [ROOT]
    if resource != ROOT:
        end = resource.find("/")
        while end != -1:
            covering.append(resource[:end])
            end = resource.find("/", end + 1)
        covering.append(resource)
    return covering


def _indexes_by_member(members_of: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    indexes: dict[str, list[int]] = {}
    for i, members in enumerate(members_of):
        for member in members:
            indexes.setdefault(member, []).append(i)
    return indexes


def _merged(indexes: dict[str, list[int]], memberships: list[str]) -> list[int]:
    """Return the indexes of all memberships, each once, in the order of the policy."""
    return sorted({i for member in memberships for i in indexes.get(member, ())})


_NO_PERMISSION: Final = "is not a permission"
_NO_PRINCIPAL: Final = "is not a principal: spiffe://domain/path, dns:name or jwt:issuer:sub, in its canonical spelling"
_NO_MEMBER: Final = f"{_NO_PRINCIPAL}; nor is it group: and a group of this policy"


def _invalid(path: str, problem: str) -> InvalidArgument:
    return InvalidArgument("POLICY_INVALID", f"{path} {problem}", field=path)


def _check_names(names: list[str], path: str) -> set[str]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not _NAME.fullmatch(name):
            raise _invalid(f"{path}[{i}].name", "must match [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
        if name in seen:
            raise _invalid(f"{path}[{i}].name", "is used twice")
        seen.add(name)
    return seen


def _check_set(values: tuple[str, ...], path: str, known: Callable[[str], bool], problem: str, *, least: int) -> None:
    if len(values) < least:
        raise _invalid(path, "is empty")
    if len(values) > MAX_MEMBERS:
        raise _invalid(path, f"may hold at most {MAX_MEMBERS:,} items")
    seen: set[str] = set()
    for i, value in enumerate(values):
        if not known(value):
            raise _invalid(f"{path}[{i}]", problem)
        if value in seen:
            raise _invalid(f"{path}[{i}]", "is listed twice")
        seen.add(value)


def _check_resource(resource: str, path: str) -> None:
    if not _POLICY_RESOURCE.fullmatch(resource):
        raise _invalid(
            path,
            "must be /, vaults, vaults/{vault}, vaults/{vault}/keys/{key} or vaults/{vault}/secrets/{secret}",
        )


def _fields(
    value: object, path: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> dict[str, object]:
    known = required + optional
    if not isinstance(value, dict):
        raise _invalid(path, f"must be a mapping with {', '.join(known)}")
    if any(key not in known for key in value):
        raise _invalid(path, f"has a key that is not one of {', '.join(known)}")
    for key in required:
        if key not in value:
            raise _invalid(f"{path}.{key}", "is missing")
    return value


def _items(
    top: dict[str, object], section: str, keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, object]]]:
    values = top.get(section, [])
    if not isinstance(values, list):
        raise _invalid(section, "must be a list")
    for i, value in enumerate(values):
        path = f"{section}[{i}]"
        yield path, _fields(value, path, required=keys, optional=optional)


def _condition(item: dict[str, object], path: str) -> str:
    text = _text(item["condition"], f"{path}.condition") if "condition" in item else ""
    if "condition" in item and not text:
        # To Policy an empty one is none; a document that has one meant something, and must not become unconditional.
        raise _invalid(f"{path}.condition", "is empty; leave it out")
    return text


def _conditional(entry: Binding | Deny) -> dict[str, Any]:
    return {"condition": entry.condition} if entry.condition else {}


def _compile(condition: str, path: str) -> None:
    try:
        compile_condition(condition)
    except ConditionInvalid as error:
        raise _invalid(path, str(error)) from None


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _invalid(path, "must be text; quote what YAML reads as a number, a date or true")
    return value


def _texts(value: object, path: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _invalid(path, "must be a list")
    return tuple(_text(item, f"{path}[{i}]") for i, item in enumerate(value))
