"""Many watchers of one identity, in a process of its own.  `python watch_clients.py ADDRESS TLS_DIRECTORY STEM WATCHERS`

Says `ready` when every watch is open.  Each line on standard input is a number of changes to wait for; the answer is JSON:
for each watcher how many it saw and a digest over their revisions in order, and latencies of some of them.  Ends with its input.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from array import array
from pathlib import Path

from processes import ROOT  # the checkout comes onto the path

import grpc  # isort: skip

from vaultd_client.v1 import admin_pb2_grpc, watch_pb2

STREAMS_PER_CONNECTION = 84
"""A connection may have 100."""
SAMPLED = 25
"""Of so many watchers one keeps the latency of each event."""
WAIT_S = 1_800
KEYS = watch_pb2.WatchFilter(resource_prefix="vaults/default/keys", kinds=[watch_pb2.RESOURCE_KIND_KEY])
RESUMABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}
"""The connection ended, or this reader was too slow: the watch goes on with its token."""

assert ROOT.is_dir()


class Watcher:
    """One watch: what it has seen since the last order."""

    def __init__(self, stub: admin_pb2_grpc.AdminServiceStub, sampled: bool) -> None:
        self._stub = stub
        self._call = stub.Watch(watch_pb2.WatchRequest(filter=KEYS))
        self._sampled = sampled
        self._token = ""
        self.resumed = self.responses = 0
        self.seen = 0
        self.failed = ""
        self.digest = hashlib.sha256()
        self.latencies_us: list[int] = []
        self._last = 0

    async def open(self) -> None:
        first = await self._call.read()
        self._last, self._token = first.revision, first.resume_token

    async def follow(self, wanted: int) -> None:
        """Read until so many changes were seen."""
        revisions = array("q")
        while self.seen < wanted:
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() not in RESUMABLE:
                    raise
                self.resumed += 1
                self._call = self._stub.Watch(watch_pb2.WatchRequest(filter=KEYS, resume_token=self._token))
                revisions = array("q")
                continue
            self.responses += 1
            revisions.extend(event.revision for event in response.events)
            if not response.resume_token:
                continue  # more follows that belongs to it
            self._token = response.resume_token
            if not revisions:
                continue
            if revisions[0] <= self._last:
                self.failed = f"revision {revisions[0]} after {self._last}"
                return
            self._last = response.revision
            self.seen += len(revisions)
            self.digest.update(revisions.tobytes())
            revisions = array("q")
            if self._sampled:
                now_us = time.time_ns() // 1000
                self.latencies_us += [now_us - event.time.ToMicroseconds() for event in response.events]

    def take(self) -> dict[str, object]:
        """What was seen, and begin anew."""
        taken = {
            "seen": self.seen,
            "digest": self.digest.hexdigest(),
            "failed": self.failed,
            "resumed": self.resumed,
            "responses": self.responses,
        }
        self.seen, self.digest, self.resumed, self.responses = 0, hashlib.sha256(), 0, 0
        return taken


async def main(address: str, tls: Path, stem: str, count: int) -> None:
    files = [(tls / name).read_bytes() for name in ("ca.crt", f"{stem}.key", f"{stem}.crt")]
    credentials = grpc.ssl_channel_credentials(*files)
    channels, watchers = [], []
    for at in range(count):
        if at % STREAMS_PER_CONNECTION == 0:
            channels.append(
                grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            stub = admin_pb2_grpc.AdminServiceStub(channels[-1])
        watchers.append(Watcher(stub, at % SAMPLED == 0))
    await asyncio.gather(*(watcher.open() for watcher in watchers))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        wanted = int(line)
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*(watcher.follow(wanted) for watcher in watchers))
        except TimeoutError:
            pass  # the counts say who did not see everything
        latencies_us = [latency for watcher in watchers for latency in watcher.latencies_us]
        for watcher in watchers:
            watcher.latencies_us.clear()
        print(json.dumps({"watchers": [w.take() for w in watchers], "latencies_us": latencies_us}), flush=True)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
