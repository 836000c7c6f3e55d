"""The policy calls of AdminService: message to engine call and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.errors import InvalidArgument
from vaultd.services.convert import (
    access_grant_message,
    circumstances_of,
    decision_message,
    duration_us,
    explanation_message,
    policy_document,
    policy_message,
    set_time,
)
from vaultd_client.v1 import policy_pb2 as pb

if TYPE_CHECKING:
    from vaultd.engine.editor import PolicyEditor
    from vaultd.engine.explain import Explainer
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.policy import Decision
    from vaultd.engine.review import AccessReview
    from vaultd.engine.tester import PolicyTester
    from vaultd.services.context import Context


class PolicyCalls:
    """Reads, changes, tests and explains the policy."""

    def __init__(
        self, editor: PolicyEditor, tester: PolicyTester, explainer: Explainer, review: AccessReview, ledger: Ledger
    ) -> None:
        self._editor = editor
        self._tester = tester
        self._explainer = explainer
        self._review = review
        self._ledger = ledger

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.ResourcePolicy:
        del context
        return policy_message(self._editor.get(request.resource))

    async def SetPolicy(self, request: pb.SetPolicyRequest, context: Context) -> pb.ResourcePolicy:
        if not request.HasField("policy"):
            raise InvalidArgument(
                "INPUT_MISSING", "policy is missing; an empty one must be sent as such", field="policy"
            )
        part = policy_document(request.policy)
        return policy_message(await self._editor.set(context.intent(request), request.resource, part, request.etag))

    async def TestPolicy(self, request: pb.TestPolicyRequest, context: Context) -> pb.TestPolicyResponse:
        permissions = list(request.permissions)
        circumstances = circumstances_of(request)
        if circumstances.method:
            needs = self._explainer.method(circumstances.method, "circumstances.method")
            circumstances = replace(circumstances, method=needs.path)
            permissions = permissions or list(needs.permissions)
        if not permissions:
            raise InvalidArgument(
                "INPUT_MISSING", "name permissions, or a method in circumstances that needs some", field="permissions"
            )
        if request.HasField("policy"):
            decisions = await self._tester.candidate(
                request.policy_resource or "/",
                policy_document(request.policy),
                request.principal or context.principal,
                permissions,
                request.resource,
                circumstances,
            )
        elif request.principal:
            decisions = await self._tester.in_force(request.principal, permissions, request.resource, circumstances)
        else:
            if request.HasField("circumstances"):
                raise InvalidArgument(
                    "INPUT_UNEXPECTED",
                    "circumstances go with principal or policy; your own test is made with those of this call",
                    field="circumstances",
                )
            held = await self._tester.own(context.caller, context.method, permissions, request.resource)
            return pb.TestPolicyResponse(permissions=_held(permissions, held))
        messages = [decision_message(*pair) for pair in zip(permissions, decisions, strict=True)]
        return pb.TestPolicyResponse(permissions=_held(permissions, decisions), decisions=messages)

    async def ExplainAccess(self, request: pb.ExplainAccessRequest, context: Context) -> pb.ExplainAccessResponse:
        named = (request.principal, request.method, request.resource)
        if request.incident_id:
            if any(named) or request.HasField("circumstances"):
                raise InvalidArgument(
                    "INPUT_UNEXPECTED", "incident_id stands alone; leave the other fields out", field="incident_id"
                )
            found = await self._explainer.refusal(context.caller, context.method, request.incident_id)
        else:
            if not all(named):
                raise InvalidArgument(
                    "INPUT_MISSING", "name principal, method and resource, or incident_id alone", field="principal"
                )
            found = await self._explainer.access(context.caller, context.method, *named, circumstances_of(request))
        return explanation_message(found)

    async def ReviewAccess(self, request: pb.ReviewAccessRequest, context: Context) -> pb.ReviewAccessResponse:
        del context
        limit = page_limit(request.page_size)
        unused_us = duration_us(request, "unused_for", "unused_for")
        # An index into the policy of now: a token of another policy would skip some.
        query = f"review {request.resource} {unused_us} {self._editor.get('/').etag}"
        start = int(page_start(self._ledger, query, request.page_token) or 0)
        grants = await self._review.grants(request.resource, unused_us, start, limit + 1)
        messages = [access_grant_message(grant) for grant in grants]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = pb.ReviewAccessResponse(grants=messages[:length])
        if len(messages) > length:
            response.next_page_token = page_token(self._ledger, query, str(start + length))
        set_time(response.observed_since, await self._review.since_us())
        return response


def _held(permissions: list[str], decisions: list[Decision]) -> list[str]:
    return [permission for permission, decision in zip(permissions, decisions, strict=True) if decision.allowed]
