"""Writes the generated parts of the documentation from the code's tables; `--check` compares instead of writing.

A generated part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.  docs/errors.md is written by hand and
checked here: every reason that the code can give must be in its table with its code, and nothing else may be.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "clients" / "python")]

from commands import command_tables  # noqa: E402  # the checkout comes first on the path

from vaultd import config, errors, names  # noqa: E402  # the checkout comes first on the path
from vaultd.audit import folding, log  # noqa: E402
from vaultd.backends import rootkeys  # noqa: E402
from vaultd.backends.pkcs11.uses import USES  # noqa: E402
from vaultd.backends.software import SoftwareBackend  # noqa: E402
from vaultd.engine import (  # noqa: E402
    access,
    approval_rules,
    approvals,
    audit_witness,
    conditions,
    key_grants,
    key_specs,
    key_versions,
    leases,
    paging,
    permissions,
    policy,
    policy_change,
    quota_store,
    quotas,
    refusals,
    revocations,
    scheduler,
    secret_aliases,
    secret_payloads,
    secrets,
    usage,
    watch,
    weights,
)
from vaultd.engine.algorithms import ALGORITHMS, Algorithm, ProtectionLevel, Purpose, default_algorithm  # noqa: E402
from vaultd.engine.clock import DAY_US, SECOND_US  # noqa: E402
from vaultd.engine.ledger import REPLAY_WINDOW_US  # noqa: E402
from vaultd.engine.model import VersionState  # noqa: E402
from vaultd.hosts import grpcio, plain  # noqa: E402
from vaultd.interceptors import (  # noqa: E402
    batches,
    crl,
    item_stream,
    jose,
    streams,
    throttle,
    tokens,
    unread_answers,
    validate,
)
from vaultd.interceptors.errors import Internal  # noqa: E402
from vaultd.interceptors.rules import RULES, Access  # noqa: E402
from vaultd.services import crypto_stream, health  # noqa: E402
from vaultd.telemetry.metrics import METRICS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

VECTORS = ROOT / "tests" / "vectors" / "compat" / "ciphertexts-v1.json"
ERRORS = ROOT / "docs" / "errors.md"
SOFTHSM_LACKS = ROOT / "tests" / "contract" / "softhsm-lacks.txt"
KIB = 1024

CALLS = {
    Purpose.ENCRYPT_DECRYPT: "Encrypt, Decrypt, ReEncrypt, GenerateDataKey, InspectCiphertext",
    Purpose.DETERMINISTIC: "Encrypt, Decrypt, ReEncrypt, InspectCiphertext",
    Purpose.ASYMMETRIC_DECRYPT: "Encrypt, Decrypt, ReEncrypt",
    Purpose.WRAP: "WrapKey, UnwrapKey",
    Purpose.SIGN: "Sign, Verify",
    Purpose.MAC: "GenerateMac, VerifyMac",
    Purpose.KEY_AGREEMENT: "DeriveSharedSecret",
    Purpose.KEM: "Encapsulate, Decapsulate",
    Purpose.HPKE: "Encrypt, Decrypt, ReEncrypt",
}
NAME_CHECKS = {
    "parse_id": "an id: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`",
    "parse_key_name": "`vaults/{vault}/keys/{key}`",
    "parse_version_name": "`vaults/{vault}/keys/{key}/versions/{version}`",
    "parse_key_or_version_name": "a key or a version",
    "parse_vault_name": "`vaults/{vault}`",
    "parse_grant_name": "`vaults/{vault}/keys/{key}/grants/{grant}`",
    "parse_key_or_vault_name": "a key or a vault",
    "parse_approval_name": "`approvals/{approval}`",
    "parse_import_job_name": "`vaults/{vault}/importJobs/{import_job}`",
    "_rules": f"at most {approval_rules.MAX_RULES}, together at most {approval_rules.MAX_RULES_CHARS // KIB} KiB",
    "_grantable": f"1 to {validate.MAX_GRANTED} permissions that can be granted, each once",
    "parse_watched_prefix": "`/`, `vaults`, `vaults/{vault}`, its `keys` or `secrets`, one of them, its `versions`, or a version",
    "_kinds": f"at most {validate.MAX_KINDS} known kinds",
    "_heartbeat": f"1 s to {validate.MAX_HEARTBEAT_S} s",
    "_etag": "empty, or an etag that the server gave",
    "_request_id": "empty, or 1 to 64 of `[A-Za-z0-9-]`",
    "_labels": f"at most {validate.MAX_LABELS}; keys `[a-z][a-z0-9_-]{{0,62}}`, values `[a-zA-Z0-9._/-]{{0,63}}`",
    "_principal": "a principal in its one spelling",
    "_mask": f"1 to {validate.MAX_MASK_PATHS} paths, or `*`",
    "parse_secret_name": "`vaults/{vault}/secrets/{secret}`",
    "parse_secret_version_name": "`vaults/{vault}/secrets/{secret}/versions/{number}`",
    "parse_secret_or_version_name": "a secret, or a version by number or alias",
    "_states": f"at most {validate.MAX_STATES} states",
    "parse_alias": "an alias: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`",
    "_payload": f"at most {secret_payloads.MAX_PAYLOAD_BYTES // KIB} KiB",
    "_filled_payload": f"1 byte to {secret_payloads.MAX_PAYLOAD_BYTES // KIB} KiB",
    "_metadata": f"at most {validate.MAX_METADATA // KIB} KiB; finite numbers",
    "parse_quota_name": "`quotas/{quota}` or `vaults/{vault}/quotas/{quota}`",
    "parse_quota_parent": "`/` or `vaults/{vault}`",
    "parse_place": "`/`, `vaults/{vault}` or `vaults/{vault}/keys/{key}`",
    "_methods": f"at most {validate.MAX_METHODS} names of methods",
    "parse_policy_scope": "`/` or `vaults/{vault}`",
    "parse_policy_resource": "`/`, `vaults`, `vaults/{vault}`, a key, a secret, or a version of one",
    "_permissions": f"1 to {validate.MAX_TESTED} permissions",
    "_principals": f"1 to 16, each at most {validate.MAX_PRINCIPAL_CHARS} characters",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def size(count: int) -> str:
    """1,088 or 64 KiB: whole multiples of KiB as such."""
    if count >= KIB**2 and count % KIB**2 == 0:
        return f"{count // KIB**2} MiB"
    return f"{count // KIB} KiB" if count >= 8 * KIB and count % KIB == 0 else f"{count:,}"


# -- algorithms ---------------------------------------------------------------------------------------------------------


def default_of(algorithm: Algorithm) -> str:
    levels = [
        level.value
        for level in ProtectionLevel
        if default_algorithm(algorithm.purpose, level) is algorithm
        and (level is not ProtectionLevel.HSM or algorithm.name in USES)
    ]
    return "all levels" if len(levels) == len(ProtectionLevel) else ", ".join(levels)


def algorithms_overview() -> str:
    rows = []
    for purpose in Purpose:
        mine = [algorithm for algorithm in ALGORITHMS.values() if algorithm.purpose is purpose]
        first = default_algorithm(purpose, ProtectionLevel.SOFTWARE)
        shown = [f"**{algorithm.name}**" if algorithm is first else algorithm.name for algorithm in mine]
        rows.append((purpose.value, CALLS[purpose], ", ".join(shown)))
    return table(("Purpose", "Calls", "Algorithms (bold: chosen when only the purpose is given)"), rows)


def algorithms_table() -> str:
    backend = SoftwareBackend()
    rows = []
    for algorithm in ALGORITHMS.values():
        rows.append(
            (
                f"`{algorithm.name}`",
                algorithm.purpose.value,
                default_of(algorithm),
                algorithm.standard,
                size(algorithm.max_input_bytes),
                f"2^{algorithm.max_messages.bit_length() - 1}" if algorithm.max_messages else "",
                str(algorithm.digest_bytes or ""),
                "yes" if algorithm.self_describing else "",
                "yes" if algorithm.public else "",
                "yes" if backend.unsupported(algorithm.name) is None else "no",
                "yes" if algorithm.name in USES else "",
            )
        )
    head = (
        "Algorithm",
        "Purpose",
        "Default for",
        "Standard",
        "Largest input, bytes",
        "Messages per version",
        "Digest, bytes",
        "Header",
        "Public key",
        "Software",
        "HSM",
    )
    return table(head, rows)


def softhsm_lacks() -> str:
    lines = [line for line in SOFTHSM_LACKS.read_text().splitlines() if line and not line.startswith("#")]
    return table(("Algorithm", "Why"), [(f"`{name}`", why) for name, why in (line.split(None, 1) for line in lines)])


# -- permissions --------------------------------------------------------------------------------------------------------


def resource_of(needed: Access) -> str:
    if isinstance(needed.resource, attrgetter):
        return f"`{needed.resource.__reduce__()[1][0]}`"
    held = inspect.getclosurevars(needed.resource).nonlocals
    if "resource" in held:
        return f"`{held['resource']}`"
    if needed.resource.__qualname__.startswith("_vault_of."):
        return f"the vault of `{held['field']}`"
    if "field" in held:
        return f"`{held['field']}`, or `/`"
    return f"the vault of `{held['name'].__reduce__()[1][0]}`, or `/`"  # of a quota's name


def permission_rows() -> Iterator[Sequence[str]]:
    for rule in RULES:
        service, method = rule.method.rsplit("/", 1)
        if rule.open:
            needs, on, hides = "none: open to every accepted connection", "", ""
        elif rule.operator_only:
            needs, on, hides = "listed under `operators`", "the server", ""
        elif rule.named:
            needs, on, hides = "named by the approval itself", "`name`", ""
        elif rule.each:
            needs, on, hides = "that of each operation's single call", "", ""
        elif rule.some:
            needs = " or ".join(f"`{permission}`" for permission in rule.some)
            on, hides = "`filter.resource_prefix`, above or below it", ""
        else:
            needs = "<br>".join(f"`{a.permission}`{'' if a.when is None else ' (not always)'}" for a in rule.access)
            on = "<br>".join(resource_of(a) for a in rule.access)
            hides = "<br>".join(f"`{a.visible_by}`" for a in rule.access)
            if rule.operator:
                needs += ", or listed under `operators`"
        marks = "yes" if rule.mutation else "", "yes" if rule.idempotent else ""
        yield f"{service.rsplit('.', 1)[1]}.{method}", needs, on, hides, rule.cost, *marks


def permissions_by_rpc() -> str:
    head = ("RPC", "Permission", "On", "Missing looks forbidden without", "Rate class", "Mutation", "Idempotent")
    return table(head, permission_rows())


def roles_table() -> str:
    roles = permissions.BUILT_IN_ROLES
    rows = [
        (f"`{name}`", *("x" if name in held else "" for held in roles.values()))
        for name in sorted(permissions.PERMISSIONS)
    ]
    return table(("Permission", *(f"`{role}`" for role in roles)), rows)


# -- limits -------------------------------------------------------------------------------------------------------------


def limit_of(check: Any) -> str:
    """Say a check of validate.REQUESTS in words; raises KeyError for one that this file does not know."""
    minimum, maximum = getattr(check, "minimum", None), getattr(check, "maximum", None)
    if minimum is not None and maximum is not None:
        unit = "" if size(maximum).endswith("B") else " bytes"
        return f"{minimum} to {size(maximum)}{unit}" if minimum else f"at most {size(maximum)}{unit}"
    maker = check.__qualname__.partition(".")[0]
    if maker in NAME_CHECKS:
        return NAME_CHECKS[maker]
    held = inspect.getclosurevars(check).nonlocals
    if maker == "_between":
        return f"{held['minimum']:,} to {held['maximum']:,}"
    if maker == "_optional":
        return f"empty, or {limit_of(held['check'])}"
    if maker == "_text":
        return f"at most {held['maximum']:,} characters"
    if maker == "_chars":
        return f"at most {held['maximum']} printable characters"
    if maker == "_hash":
        return f"empty, or {held['size']} bytes"
    if maker == "_texts":
        return f"at most {held['most']}, each of at most {held['chars']:,} printable characters"
    raise KeyError(maker)


def limits_of(path: str, check: Any) -> Iterator[tuple[str, str]]:
    """The fields that a check is about, at any depth, and their limits."""
    if not getattr(check, "__qualname__", "").startswith("_resource."):
        yield path, limit_of(check)
        return
    for name, one in inspect.getclosurevars(check).nonlocals["checks"].items():
        yield from limits_of(f"{path}.{name}", one)


def field_limits() -> str:
    rows = []
    for message, checks in validate.REQUESTS.items():
        for field, check in checks.items():
            rows += [(message, f"`{path}`", limit) for path, limit in limits_of(field, check)]
    return table(("Message", "Field", "Limit"), rows)


def fixed_limits() -> str:
    rows = [
        ("a message, either way", size(grpcio.MAX_MESSAGE_BYTES)),
        ("items of a batch", f"1 to {batches.MAX_ITEMS:,}"),
        ("a resource name", f"{names.MAX_NAME_CHARS} characters"),
        ("a page", f"{paging.MAX_PAGE:,} items, {paging.DEFAULT_PAGE} by default"),
        ("a page token", f"{validate.MAX_TOKEN_CHARS} characters"),
        ("how long a `request_id` is remembered", f"{REPLAY_WINDOW_US // SECOND_US // 3600} hours"),
        ("versions of a key", f"{key_versions.MAX_VERSIONS:,}"),
        ("versions of a secret, in its life", f"{secrets.MAX_VERSIONS:,}"),
        ("`keep_versions` of a secret", f"1 to {secret_aliases.MAX_KEPT}, {secret_aliases.DEFAULT_KEPT} by default"),
        ("aliases of a secret", f"{secret_aliases.MAX_ALIASES}"),
        ("`version_ttl` of a secret", "1 second to 100 years"),
        ("`rotation_period`", f"1 hour to {key_specs.MAX_ROTATION_US // DAY_US:,} days"),
        ("`destroy_scheduled_duration`", f"at most {key_specs.MAX_DESTROY_DELAY_US // DAY_US} days"),
        ("grants of a key, in all", f"{key_grants.MAX_GRANTS_PER_KEY:,}, {key_grants.MAX_GRANTS:,}"),
        ("`expire_time` of a grant", f"at most {key_grants.MAX_TERM_US // DAY_US} days ahead"),
        ("uses of a grant leased at a time", f"a sixteenth of `max_uses`, at most {key_grants.BLOCK_USES:,}"),
        ("open approvals of a principal, in all", f"{approvals.MAX_OPEN_PER_PRINCIPAL}, {approvals.MAX_OPEN:,}"),
        ("how long an approval that ended can be looked at", f"{approvals.KEPT_US // DAY_US} days"),
        ("methods, approvers of an approval rule", f"{approval_rules.MAX_METHODS}, {approval_rules.MAX_APPROVERS}"),
        ("messages leased at a time (random-nonce ciphers)", f"{usage.BLOCK_MESSAGES:,}"),
        ("share of the message budget at which a key is rotated by itself", f"{usage.ROTATE_AT:.1%}"),
        ("cost of a message in its rate class", f"1, and 1 more for each {size(throttle.BYTES_PER_TOKEN)}"),
        ("cost of a batch", "that of its message, and 1 for each item after the first"),
        ("principals whose rates are remembered", f"{quotas.MAX_PRINCIPALS:,}"),
        ("quotas of a vault, or of the server", f"{quota_store.MAX_QUOTAS:,}"),
        ("windows of a quota", f"1 to {quota_store.MAX_WINDOWS}"),
        ("tokens of a durable window that are leased at a time", f"1/{leases.BLOCKS} of its burst"),
        ("refusals recorded one by one, per principal, reason and second", f"{folding.INDIVIDUAL_PER_SECOND}"),
        ("watchers of health", f"{health.MAX_WATCHED}"),
        (
            "connections of the metrics listener, a request there",
            f"{plain.MAX_CONNECTIONS}, {size(plain.MAX_REQUEST_BYTES)}",
        ),
        ("operations of a message of CryptoStream", f"1 to {crypto_stream.MAX_OPERATIONS:,}; so of ReEncryptStream"),
        (
            "operations of such a stream without answer; their bytes, and those of answers not taken",
            f"{item_stream.MAX_UNANSWERED:,}; {size(item_stream.MAX_UNANSWERED_BYTES)}: then no more is read or begun",
        ),
        (
            "answers of calls that their callers have not read",
            "`limits.stream_mib_per_principal`, `limits.stream_mib`; "
            f"those below {size(unread_answers.COUNTED_BYTES)} do not count",
        ),
        ("how far a Watch may fall behind", f"{watch.RING_EVENTS:,} changes"),
        ("how far back the feed reaches", f"{scheduler.FEED_REVISIONS:,} revisions"),
        ("a message that the reader of a stream does not take", f"{streams.STALLED_S:g} s"),
        ("a segment of the audit log", size(log.MAX_SEGMENT_BYTES)),
        ("time for the audit log to reach the disk", f"{log.SYNC_TIMEOUT_S:g} s"),
        ("records after which a checkpoint is signed before its time", f"{audit_witness.MAX_UNSIGNED:,}"),
        ("a passphrase", f"{rootkeys.MIN_PASSPHRASE_BYTES} to {rootkeys.MAX_PASSPHRASE_BYTES:,} bytes"),
        ("the configuration file", size(config.MAX_FILE_BYTES)),
        ("a token", f"{jose.MAX_TOKEN_CHARS:,} characters"),
        ("verified tokens that are remembered", f"{tokens.MAX_CACHED:,}"),
        ("a key set of an issuer", f"{size(jose.MAX_JWKS_BYTES)}, {jose.MAX_KEYS} keys"),
        ("revocation lists of a trust bundle", size(crl.MAX_CRL_BYTES)),
        ("revoked principals", f"{revocations.MAX_REVOKED:,}"),
        ("roles, groups of a policy", f"{policy.MAX_ROLES:,}, {policy.MAX_GROUPS:,}"),
        ("bindings, denies of a policy", f"{policy.MAX_BINDINGS:,}, {policy.MAX_DENIES:,}"),
        ("members of one group, binding or deny", f"{policy.MAX_MEMBERS:,}"),
        ("members in a policy as a whole", f"{policy.MAX_MEMBERS_IN_ALL:,}"),
        ("conditions in a policy", f"{policy.MAX_CONDITIONS:,}"),
        ("a condition", f"{conditions.MAX_CONDITION_CHARS:,} characters"),
        (
            "entries that SetPolicy compares, those of each principal counted for each",
            f"{policy_change.MAX_COMPARED:,}",
        ),
        (
            "refused calls that ExplainAccess knows",
            f"{refusals.MAX_REFUSALS:,}, {refusals.MAX_PER_PRINCIPAL} a principal",
        ),
        ("last uses kept for a principal", f"{access.MAX_USES_PER_PRINCIPAL:,}, for {access.KEPT_US // DAY_US} days"),
    ]
    return table(("What", "Limit"), rows)


def server_options() -> str:
    rows = [(f"`{name}`", f"{value:,}") for name, value in grpcio.OPTIONS]
    rows.append(("`maximum_concurrent_rpcs`", f"{grpcio.MAX_RPCS:,}"))
    return table(("gRPC option", "Value"), rows)


def configured_limits() -> str:
    limits = config.LimitsSection()
    rows = []
    for name in type(limits).model_fields:
        value = getattr(limits, name)
        if isinstance(value, config.RateSection):
            rows.append((f"`limits.{name}`", f"{value.per_second:,} a second, {value.burst:,} at once"))
        else:
            rows.append((f"`limits.{name}`", f"{value:,}" if value is not None else "that of the algorithm"))
    return table(("Key", "Default"), rows)


def weights_table() -> str:
    private, generate = weights.WEIGHTS[weights.PRIVATE], weights.WEIGHTS[weights.GENERATE]
    names = [name for name in ALGORITHMS if name in private or name in generate]
    rows = [(f"`{name}`", str(private.get(name, 1)), str(generate.get(name, 1))) for name in names]
    return table(("Algorithm", "Private-key operation", "Making a key"), rows)


# -- metrics ------------------------------------------------------------------------------------------------------------


def metrics_table() -> str:
    rows = [
        (
            f"`{metric.prometheus}`",
            metric.kind.value,
            ", ".join(f"`{label}`" for label in metric.prometheus_labels),
            f"{metric.text}{'' if metric.name.replace('.', '_') == metric.prometheus else f' (`{metric.name}`)'}",
        )
        for metric in METRICS.values()
    ]
    return table(("Metric", "Kind", "Labels", "What it says (and its name in OpenTelemetry)"), rows)


# -- vectors ------------------------------------------------------------------------------------------------------------


def vectors() -> str:
    """The first and the third of the four vectors of each algorithm; the file has all of them."""
    shown = []
    for at, vector in enumerate(json.loads(VECTORS.read_text())["vectors"]):
        if at % 4 in (0, 2):
            fields = [f"{name:<15} {vector[name]}" for name in vector if name != "algorithm"]
            shown.append("\n".join([f"{vector['algorithm']}", "", "```text", *fields, "```"]))
    return "\n\n".join(shown)


# -- errors -------------------------------------------------------------------------------------------------------------

CLASSES = {
    name: value.code
    for name, value in {**vars(errors), "Internal": Internal}.items()
    if isinstance(value, type) and issubclass(value, errors.VaultdError)
}
REASON = re.compile(r"[A-Z][A-Z0-9_]*")
STATES = {state.value for state in VersionState} - {VersionState.ENABLED.value}
"""What a version's state can be in a reason: an ENABLED one is never the reason of a refusal."""


class Unreadable(Exception):
    """A reason that cannot be read off the source; the text says where."""


def reasons_of(argument: ast.expr, assigned: dict[str, ast.expr], where: str) -> set[str]:
    if isinstance(argument, ast.Name) and argument.id in assigned:
        argument = assigned[argument.id]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and REASON.fullmatch(argument.value):
        return {argument.value}
    if isinstance(argument, ast.JoinedStr) and len(argument.values) == 2:
        prefix, state = argument.values
        if isinstance(prefix, ast.Constant) and ast.unparse(state).rstrip("}'\"").endswith("state.value"):
            return {f"{prefix.value}{value}" for value in STATES}
    raise Unreadable(f"{where}: write the reason as a literal, so that docs/errors.md can be checked")


def raised() -> set[tuple[str, str]]:
    """Every (reason, code) that the code can give."""
    found: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "vaultd").rglob("*.py")):
        tree = ast.parse(path.read_text())
        assigned = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "reason"
        }
        for owner in ast.walk(tree):
            if isinstance(owner, ast.ClassDef) and owner.name in CLASSES and owner.name != "VaultdError":
                for node in ast.walk(owner):  # super().__init__("REASON", ...) of an error with one reason
                    if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
                        reasons = reasons_of(node.args[0], {}, f"{path}:{node.lineno}")
                        found |= {(reason, CLASSES[owner.name]) for reason in reasons}
            if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id in CLASSES:
                own = owner.func.id in {"DecryptionFailed", "InvalidSignature", "Internal"}
                if owner.args and not own:
                    reasons = reasons_of(owner.args[0], assigned, f"{path}:{owner.lineno}")
                    found |= {(reason, CLASSES[owner.func.id]) for reason in reasons}
    return found


def documented() -> set[tuple[str, str]]:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([A-Z_, ]+) \|", ERRORS.read_text(), flags=re.MULTILINE)
    return {(reason, code.strip()) for reason, codes in rows for code in codes.split(",")}


def error_problems() -> list[str]:
    try:
        code, text = raised(), documented()
    except Unreadable as error:
        return [str(error)]
    missing = [f"docs/errors.md lacks `{reason}` ({of})" for reason, of in sorted(code - text)]
    return missing + [
        f"docs/errors.md has `{reason}` ({of}), which no code gives" for reason, of in sorted(text - code)
    ]


# -- files --------------------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"algorithms": algorithms_overview},
    "docs/algorithms.md": {"overview": algorithms_overview, "algorithms": algorithms_table},
    "docs/permissions.md": {"rpcs": permissions_by_rpc, "roles": roles_table},
    "docs/limits.md": {
        "fields": field_limits,
        "fixed": fixed_limits,
        "server": server_options,
        "configured": configured_limits,
    },
    "docs/formats.md": {"vectors": vectors},
    "docs/hsm.md": {"softhsm-lacks": softhsm_lacks},
    "docs/quotas.md": {"weights": weights_table},
    "docs/metrics.md": {"metrics": metrics_table},
    "docs/vaultctl.md": {"commands": command_tables},
}


def fill(path: str, text: str, parts: dict[str, Callable[[], str]]) -> str:
    for name, make in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{path} needs {begin} and {end}, once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise SystemExit("usage: python docs/generate.py [--check]")
    problems = []
    for path, parts in PARTS.items():
        old = (ROOT / path).read_text()
        new = fill(path, old, parts)
        if new != old and check:
            problems.append(f"{path} is stale: run `make generate`")
        elif new != old:
            (ROOT / path).write_text(new)
    problems += error_problems()
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
