"""AdminService's calls about the audit log: message to engine call and back."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Final

from vaultd.engine.audit_tail import RecordFilter
from vaultd.errors import InvalidArgument
from vaultd_client.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vaultd.audit.heads import Newest
    from vaultd.engine.audit_proofs import AuditProofs
    from vaultd.engine.audit_tail import AuditTail
    from vaultd.engine.audit_witness import AuditWitness
    from vaultd.services.context import Context, StreamContext

DEFAULT_HEARTBEAT_S: Final = 15.0


def checkpoint_message(newest: Newest) -> pb.AuditCheckpoint:
    """A checkpoint as it goes out."""
    head = newest.head
    message = pb.AuditCheckpoint(
        chain_id=head.chain_id,
        tree_size=head.size,
        root_hash=head.root,
        first_sequence=head.first,
        note=newest.note,
    )
    message.sign_time.FromDatetime(datetime.fromisoformat(head.time))
    return message


class AuditCalls:
    """Proofs, verification and the tail of this node's log."""

    def __init__(self, proofs: AuditProofs, tail: AuditTail, witness: AuditWitness) -> None:
        self._proofs = proofs
        self._tail = tail
        self._witness = witness

    async def GetInclusionProof(self, request: pb.GetInclusionProofRequest, context: Context) -> pb.InclusionProof:
        del context
        proof = await self._proofs.inclusion(request.sequence, request.chain_id, request.leaf_hash)
        return pb.InclusionProof(
            sequence=proof.sequence,
            leaf_hash=proof.leaf,
            leaf_index=proof.index,
            path=proof.path,
            checkpoint=checkpoint_message(proof.checkpoint),
            public_keys=self._witness.public_pem.decode(),
        )

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.ConsistencyProof:
        del context
        proof = await self._proofs.consistency(request.tree_size, request.chain_id)
        return pb.ConsistencyProof(
            tree_size=proof.size, path=proof.path, checkpoint=checkpoint_message(proof.checkpoint)
        )

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Context) -> pb.VerifyAuditResponse:
        del context
        found = await self._proofs.verify(request.first_sequence, request.max_records, request.chain_id)
        response = pb.VerifyAuditResponse(
            intact=found.bad is None,
            first_sequence=found.first,
            last_sequence=found.last,
            checkpoints=found.checkpoints,
            next_sequence=found.following,
            checkpoint=checkpoint_message(found.checkpoint),
        )
        if found.bad is not None:
            response.bad_segment, response.bad_line = found.bad.place
            response.bad_sequence, response.problem = found.bad.sequence, found.bad.problem
        return response

    async def TailAudit(
        self, request: pb.TailAuditRequest, context: StreamContext
    ) -> AsyncIterator[pb.TailAuditResponse]:
        if request.HasField("after_sequence") and request.HasField("start_time"):
            raise InvalidArgument("TWO_STARTS", "give after_sequence or start_time, not both", field="start_time")
        wanted = request.filter
        interval = request.heartbeat_interval
        deliveries = self._tail.follow(
            RecordFilter(
                frozenset(wanted.events),
                frozenset(wanted.methods),
                frozenset(wanted.principals),
                frozenset(wanted.codes),
                wanted.resource_prefix,
            ),
            after=request.after_sequence if request.HasField("after_sequence") else None,
            start_us=request.start_time.ToMicroseconds() if request.HasField("start_time") else None,
            to_end=request.stop_at_end,
            heartbeat_s=interval.ToNanoseconds() / 1e9 if interval.ByteSize() else DEFAULT_HEARTBEAT_S,
            chain_id=request.chain_id,
        )
        chain_id = request.chain_id or self._witness.chain_id
        async with aclosing(deliveries):
            async for records, sequence in deliveries:
                yield pb.TailAuditResponse(
                    records=[pb.AuditRecord(sequence=record.sequence, line=record.line) for record in records],
                    sequence=sequence,
                    chain_id=chain_id,
                )
                context.resume["after_sequence"] = str(sequence)
