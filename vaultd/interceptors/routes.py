"""Joins descriptors, rules and services into routes, and refuses to start when any of the three lacks what another has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from vaultd.errors import InvalidArgument
from vaultd.interceptors.validate import REQUESTS, Validator, compile_validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    from vaultd.interceptors.rules import Rule


class RouteMissing(Exception):
    """The descriptors, the rules and the services do not fit together; the server must not start."""


@dataclass(frozen=True, slots=True)
class Route:
    """Everything that the chain needs for one method.

    serve: the service's method; it takes (request, context), and gives a message, or what it encoded itself.  For a batch it
    takes (requests, context), and gives what it encoded, or a VaultdError, for each.  Of a stream it yields messages, or bytes
    that are such; it takes (request, context), or (requests, context) where the rule is open.  Of a stream of operations it
    takes nothing and gives an `items.Session`.
    audited: takes a validated request, gives those of its fields that the record carries.
    validate: of the request, for a batch of one item.  response, result: message types of the answer and of a batch's item.
    """

    rule: Rule
    request: type[Message]
    response: type[Message]
    validate: Validator
    serve: Callable[..., Any]
    streaming: bool
    batch: bool
    path: str
    audited: Callable[[Any], dict[str, Any]]


def build_routes(
    services: Mapping[ServiceDescriptor, object], rules: Iterable[Rule], aliases: Mapping[str, str] | None = None
) -> dict[str, Route]:
    """Route by full method.  Raises RouteMissing for a method without a rule or a service, and for a rule without a method.

    `aliases` maps a full method to the rule's of a service that is not served here, such as reflection outside of `dev`.
    """
    by_method = {rule.method: rule for rule in rules}
    if len(by_method) != len(list(rules)):
        raise RouteMissing("two rules have the same method")
    routes: dict[str, Route] = {}
    for descriptor, service in services.items():
        for method in descriptor.methods:
            path = f"/{descriptor.full_name}/{method.name}"
            rule = by_method.get(path)
            if rule is None:
                raise RouteMissing(f"{path} has no row in RULES (vaultd/interceptors/rules.py)")
            serve = getattr(service, method.name, None)
            if serve is None:
                raise RouteMissing(f"{path} has no method in its service")
            routes[path] = _route(path, rule, method, serve)
    served = {descriptor.full_name for descriptor in services}
    for path, rule in by_method.items():
        # Health and reflection come from packages that add methods over time: a rule may be ahead of them, never behind.
        if path not in routes and path.split("/")[1] in served and not rule.open:
            raise RouteMissing(f"the rule of {path} has no method in the descriptors")
    for path, target in (aliases or {}).items():
        routes[path] = routes[target]
    return routes


def _item_of(path: str, rule: Rule, method: Any) -> type[Message]:
    """What a batch holds, which is what the method takes that it repeats."""
    service, _, repeated = rule.repeats.rpartition("/")
    single = method.containing_service.methods_by_name.get(repeated)
    items = method.input_type.fields_by_name.get("items")
    fits = single is not None and items is not None and items.is_repeated and items.message_type is single.input_type
    if not fits or service != path.rpartition("/")[0]:
        raise RouteMissing(f"the rule of {path} says that it repeats {rule.repeats}, whose requests are not its items")
    item: type[Message] = GetMessageClass(items.message_type)
    return item


def _route(path: str, rule: Rule, method: Any, serve: Callable[..., Any]) -> Route:
    if method.client_streaming and not (rule.open or rule.each):
        raise RouteMissing(f"{path} takes many messages, and its rule does not say what is asked of each")
    if method.server_streaming and rule.mutation:
        raise RouteMissing(f"{path} is a stream, and its rule says that it is a mutation: those are unary")
    if not (rule.access or rule.open or rule.operator_only or rule.named or rule.some or rule.each):
        raise RouteMissing(f"the rule of {path} asks for no permission, and does not say who else decides")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    checked = _item_of(path, rule, method) if rule.batch else request
    if checked.DESCRIPTOR.name not in REQUESTS:
        raise RouteMissing(f"{checked.DESCRIPTOR.name} has no row in REQUESTS (vaultd/interceptors/validate.py)")
    return Route(
        rule=rule,
        request=request,
        response=response,
        validate=compile_validator(checked, refuse_unknown=rule.mutation),
        serve=serve,
        streaming=bool(method.server_streaming or method.client_streaming),
        batch=rule.batch,
        path=path,
        audited=_audited(request, rule.audited),
    )


def _audited(request: type[Message], paths: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    field = request.DESCRIPTOR.fields_by_name.get(paths[0]) if len(paths) == 1 else None
    if field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:  # of most methods
        (path,), text_of = paths, attrgetter(*paths)
        return lambda request: {path: text_of(request)}

    def read(request: Any) -> dict[str, Any]:
        values = {path: _inner(request, path) for path in paths}
        return {path: value if isinstance(value, str) else list(value) for path, value in values.items()}

    return read


def _inner(value: Any, path: str) -> Any:
    """A field of a message, or of a message within it; of a list of messages, that field of each."""
    for part in path.split("."):
        value = [getattr(one, part) for one in value] if isinstance(value, Sequence) else getattr(value, part)
    return value


def parse(route: Route, body: bytes | None) -> Any:
    """Parse a raw message; raises InvalidArgument, and says nothing of what it held."""
    if body is None:
        raise InvalidArgument("REQUEST_MISSING", "the call carried no message, or one larger than 4 MiB")
    try:
        return route.request.FromString(body)
    except DecodeError:
        raise InvalidArgument("REQUEST_MALFORMED", "the message is not a valid encoding of its type") from None
