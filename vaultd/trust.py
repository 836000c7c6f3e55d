"""The trust bundles as their files are: authorities and revocation lists, read again when a file changes.

What cannot be read leaves in force what is: a revocation list then holds until its nextUpdate, and after it the bundle
vouches for nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from cryptography import x509

from vaultd.config import ConfigError
from vaultd.interceptors.certificates import TrustBundle
from vaultd.interceptors.crl import MAX_CRL_BYTES, CrlError, parse_crl_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from vaultd.config import TrustBundleSection
    from vaultd.engine.clock import Clock
    from vaultd.interceptors.identity import Identity

_log = structlog.get_logger("vaultd")


def file_stamps(paths: Iterable[Path]) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file does; a file that is missing counts as a state of its own."""
    stamps = []
    for path in paths:
        try:
            stat = path.stat()
            stamps.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)


def read_trust_bundles(sections: Sequence[TrustBundleSection]) -> list[TrustBundle]:
    """Read authorities and revocation lists; raises ConfigError."""
    return [_read_bundle(at, section) for at, section in enumerate(sections)]


def require_fresh(bundles: Sequence[TrustBundle], now_us: int) -> None:
    """Raise ConfigError when a revocation list is out of date."""
    for at, bundle in enumerate(bundles):
        if bundle.revocations is not None and not bundle.revocations.is_fresh(now_us):
            raise ConfigError(
                f"trust_bundles.{at}.crl: the list is out of date (or from the future); fetch the authority's current list"
            )


def _read_bundle(at: int, section: TrustBundleSection) -> TrustBundle:
    try:
        authorities = tuple(x509.load_pem_x509_certificates(section.ca.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"trust_bundles.{at}.ca: {section.ca} is not a readable PEM bundle") from error
    revocations = None
    if section.crl is not None:
        try:
            revocations = parse_crl_file(_bounded(section.crl), authorities)
        except OSError as error:
            raise ConfigError(f"trust_bundles.{at}.crl: {section.crl} cannot be read") from error
        except CrlError as error:
            raise ConfigError(f"trust_bundles.{at}.crl: {section.crl} {error}") from error
    return TrustBundle(section.name, authorities, section.trust_domain, section.dns_suffixes, revocations)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_CRL_BYTES + 1)


class TrustFiles:
    """Keeps an Identity at what the files say.  `on_crl` hears of each bundle with a list whether the list holds."""

    def __init__(
        self, sections: Sequence[TrustBundleSection], clock: Clock, on_crl: Callable[[str, bool], None]
    ) -> None:
        """Read all files; raises ConfigError."""
        self._sections = tuple(sections)
        self._clock = clock
        self._on_crl = on_crl
        self._stamps = [self._stamp(section) for section in self._sections]
        self.bundles = read_trust_bundles(self._sections)

    @staticmethod
    def _stamp(section: TrustBundleSection) -> tuple[tuple[int, int, int], ...]:
        return file_stamps([section.ca] if section.crl is None else [section.ca, section.crl])

    def require_fresh(self) -> None:
        """Raise ConfigError when a list is out of date: the server must not start."""
        require_fresh(self.bundles, self._clock.now_us())
        self._report()

    def reload(self) -> None:
        """Read everything at the next `follow`."""
        self._stamps = [() for _ in self._sections]

    async def follow(self, identity: Identity) -> None:
        """Put in force what changed on disk, and report on the lists.  Called about twice a second."""
        changed = False
        for at, section in enumerate(self._sections):
            stamp = self._stamp(section)
            if stamp == self._stamps[at]:
                continue
            self._stamps[at] = stamp
            try:
                self.bundles[at] = await asyncio.to_thread(_read_bundle, at, section)  # a list may be large
                changed = True
            except ConfigError as error:
                _log.error("reload_refused", problem=str(error))
        if changed:
            identity.replace(self.bundles)
            _log.info("reloaded")
        self._report()

    def _report(self) -> None:
        now_us = self._clock.now_us()
        for bundle in self.bundles:
            if bundle.revocations is not None:
                self._on_crl(bundle.name, bundle.revocations.is_fresh(now_us))
