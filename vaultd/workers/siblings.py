"""The other workers as one of them sees them, through the supervisor.

What is said is what processes on one store cannot learn from it: that the vault was sealed or opened, what opens it, who tries a
PIN, and that something was committed, so that nobody has to wait for the next poll of the feed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from vaultd.errors import Unavailable
from vaultd.secret import Secret
from vaultd.workers.channel import ChannelClosed
from vaultd.workers.joined import Joined

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from vaultd.workers.channel import Body, Channel

POKE_S: Final = 0.002
"""Commits within so long are told of together."""
SETTLE_S: Final = 0.25
"""How long a mutation's answer waits for the others to have taken it in.  One that stands still answers no calls meanwhile."""
SEAL_S: Final = 5.0
OPEN_S: Final = 60.0
CHECKPOINT_S: Final = 5.0
LOGIN_S: Final = 120.0
"""How long a worker waits for its turn; one may take half of it where the token hangs.  Then it asks again."""

Keys = dict[str, Secret]
"""Root keys by their ref."""


def exposed(keys: Mapping[str, Secret]) -> dict[str, bytes]:
    """Root keys as they cross a control socket, in memory from end to end."""
    return {ref: key.expose("handed to a sibling worker") for ref, key in keys.items()}


def hidden(body: Body) -> Keys:
    """What a message holds of root keys."""
    return {str(ref): Secret(key) for ref, key in body.get("keys", {}).items()}


class LoginTurn:
    """One process's turn to try the PIN of a token."""

    def __init__(self, refused: bytes, lacking: dict[str, str] | None) -> None:
        self.refused = refused
        """SHA-256 of the PIN that the token refused last; empty when it refused none."""
        self.lacking = lacking
        """What the token cannot do, as a sibling found out; None when none did."""


class Siblings:
    """Tells the others, and asks them.

    But for `seal` and `login`, raises for none that is away: it learns what it missed when it is back.
    """

    def __init__(self, channel: Channel, hello: Body) -> None:
        self._channel = channel
        self._poke: asyncio.TimerHandle | None = None
        self._settle = Joined(lambda: self._ask("settle", SETTLE_S * 2))
        self.count: int = hello["count"]
        self.sealed: bool = hello["sealed"]
        """Whether somebody sealed the vault: a worker that comes back stays sealed then."""
        self.seals: int = hello["seals"]
        """How many times somebody did, as the supervisor counts."""

    # -- the store ------------------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """Something was committed: the others look at the feed now."""
        if self._poke is None:
            self._poke = asyncio.get_running_loop().call_later(POKE_S, self._tell)

    def _tell(self) -> None:
        self._poke = None
        self._channel.tell("committed")

    async def settled(self) -> None:
        """Return when every sibling has taken in what was committed until now, or after SETTLE_S."""
        if self._poke is not None:
            self._poke.cancel()
            self._poke = None
        await self._settle.run()

    # -- the seal -------------------------------------------------------------------------------------------------------

    def heard(self, kind: str, body: Body) -> None:
        """The supervisor says `seal` or `unseal`.  One that is starting finds it when it would unseal."""
        self.sealed, self.seals = kind == "seal", body["seals"]

    async def seal(self) -> None:
        """Seal the others.  Who does not say within seconds that it is sealed is killed, and comes back sealed.

        Raises Unavailable, reason SEAL_INCOMPLETE, when the supervisor does not say that it was done.
        """
        self.sealed = True
        try:
            await self._channel.ask("sealed", SEAL_S)
        except ChannelClosed as error:
            raise Unavailable(
                "SEAL_INCOMPLETE",
                "this worker is sealed, and it is not known whether the others are: call Seal on new connections until each"
                " says SEALED, or stop the server",
                retry_after_s=1,
            ) from error

    async def open(self, keys: Mapping[str, Secret], seals: int) -> bool:
        """Unseal the others, which are given the root keys that are only in memory.

        False where somebody sealed the vault after `seals` times: then the supervisor has sealed this worker, too.
        """
        self.sealed = False
        return not (await self._ask("opened", OPEN_S, keys=exposed(keys), seals=seals)).get("sealed")

    async def share(self, keys: Mapping[str, Secret]) -> None:
        """Give the others root keys that a ring will need before long."""
        if keys:
            await self._ask("keys", SETTLE_S * 4, keys=exposed(keys))

    async def root_keys(self) -> Keys:
        """What an unsealed sibling opens the ring with; empty when there is none."""
        return hidden(await self._ask("want_keys", OPEN_S))

    # -- audit and tokens -----------------------------------------------------------------------------------------------

    async def sign(self, chain_id: bytes) -> bool:
        """Have whoever writes a chain sign a checkpoint of it now; False when nobody does."""
        return bool((await self._ask("sign", CHECKPOINT_S, chain=chain_id)).get("signed"))

    async def refusal(self, id: str) -> Body:
        """What another worker remembers of a refused call; empty when none does."""
        return await self._ask("refusal", SETTLE_S * 4, id=id)

    @asynccontextmanager
    async def login(self, slot: str) -> AsyncIterator[LoginTurn]:
        """Hold the turn to log in to a token: one at a time, and each knows which PIN was refused.

        Raises Unavailable, reason HSM_UNAVAILABLE, when the turn does not come: without it a PIN may not be tried.
        """
        try:
            answer = await self._channel.ask("login", LOGIN_S, slot=slot)
        except ChannelClosed as error:
            self._channel.tell("no_login", slot=slot)
            raise Unavailable(
                "HSM_UNAVAILABLE", "another worker is trying the token; this one waits for its turn", retry_after_s=1
            ) from error
        turn = LoginTurn(answer["refused"], answer["lacking"])
        try:
            yield turn
        finally:
            self._channel.tell("logged_in", slot=slot, refused=turn.refused, lacking=turn.lacking)

    async def _ask(self, kind: str, timeout_s: float, **body: object) -> Body:
        try:
            return await self._channel.ask(kind, timeout_s, **body)
        except ChannelClosed:
            return {}
