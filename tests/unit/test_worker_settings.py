"""What a worker has by itself of a server's settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.harness import make_settings
from vaultd.wiring.worker import settings_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(1, 2, 2), (2, 2, 2), (4, 4, 2), (8, 2, 4), (8, 3, 3), (64, 4, 16), (None, 4, 2)],
)
def test_workers_share_the_cores_out_among_their_threads_and_each_has_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert _of_worker(tmp_path, workers).software.threads == threads


def test_as_many_threads_as_are_configured_are_each_workers(tmp_path: Path) -> None:
    for threads in (1, 5):
        assert _of_worker(tmp_path, 4, software={"threads": threads}).software.threads == threads


def test_a_worker_has_an_audit_log_of_its_own_and_the_ports_that_the_supervisor_holds(tmp_path: Path) -> None:
    found = _of_worker(tmp_path, 4)
    assert found.audit.directory == tmp_path / "audit" / "worker-3"
    assert (found.listen, found.listen_tls) == ("127.0.0.1:7443", "127.0.0.1:7444")


def _of_worker(directory: Path, workers: int, **configured: object):
    hello = {"count": workers, "listen": "127.0.0.1:7443", "listen_tls": "127.0.0.1:7444"}
    return settings_of(make_settings(directory, **configured), 3, hello)
