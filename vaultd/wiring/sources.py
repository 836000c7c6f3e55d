"""Where rows, the root key and tokens are: what the configuration names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vaultd.backends.pkcs11.pin import PinSource
from vaultd.backends.pkcs11.root_key import Pkcs11RootKey
from vaultd.backends.pkcs11.slot import SlotSettings, TokenSlot
from vaultd.backends.rootkeys import CredentialRootKey, FileRootKey, PassphraseRootKey
from vaultd.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.backends.rootkeys import RootKeyProvider
    from vaultd.config import HsmSection, RootKeySection, Settings
    from vaultd.store.base import Store
    from vaultd.workers.siblings import Siblings


def make_slot(
    section: HsmSection, on_health: Callable[[str, bool], None], siblings: Siblings | None = None
) -> TokenSlot:
    """A slot as it is configured.  Nothing runs yet.  Workers share its sessions: each has its part, and one at least."""
    selector = section.resolved()
    pin = section.pin
    source = PinSource(
        Path(selector.pin_path) if selector.pin_path else None,
        pin.credential if pin is not None else None,
        pin.environment if pin is not None else None,
    )
    settings = SlotSettings(
        name=section.name,
        selector=selector,
        read_pin=source.read,
        sessions=max(1, (section.sessions or os.cpu_count() or 1) // (siblings.count if siblings is not None else 1)),
        max_queued=section.max_queued,
        operation_timeout_s=section.operation_timeout_s,
        generation_timeout_s=section.generation_timeout_s,
        environment=section.environment,
    )
    if siblings is not None:
        settings = replace(settings, login=siblings.login)
    return TokenSlot(settings, on_health)


def open_root_key(section: RootKeySection, slots: Sequence[TokenSlot] = ()) -> RootKeyProvider:
    """The provider that the configuration names."""
    if section.provider == "pkcs11":
        return Pkcs11RootKey(next(slot for slot in slots if slot.settings.name == section.slot))
    if section.provider == "passphrase":
        return PassphraseRootKey()
    if section.provider == "file" and section.path is not None:
        return FileRootKey(section.path)
    if section.environment is not None:
        return CredentialRootKey(f"env:{section.environment}")
    return CredentialRootKey(section.credential or str(section.path))


def open_store(settings: Settings) -> Store:
    """The store that the configuration names."""
    return SqliteStore(settings.store.path)
