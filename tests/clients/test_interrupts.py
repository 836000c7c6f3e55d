"""Ctrl-C in vaultctl: it ends, with one exit code, whatever the interrupt did to the locks that it came upon."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from vaultd_client.ctl.interrupts import ended_by_interrupt

PROGRAM = """
import signal, sys, threading
import click
from vaultd_client.ctl import interrupts
from vaultd_client.ctl.commands import Root

interrupts.GRACE_S = 1

@click.group(cls=Root)
def main():
    pass

@main.command()
def torn():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        threading.RLock().release()  # as where an interrupt came within the wait for a condition

@main.command()
def stuck():
    lock = threading.Lock()
    lock.acquire()
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        lock.acquire()  # as in closing a channel whose lock an interrupt left held

@main.command()
def deaf():
    while True:
        try:
            signal.raise_signal(signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

main(args=[sys.argv[1]])
"""


@pytest.mark.parametrize("command", ["torn", "stuck", "deaf"])
def test_an_interrupted_command_ends_with_130_and_says_nothing(command):
    done = subprocess.run([sys.executable, "-c", PROGRAM, command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_interrupts_are_left_to_a_program_that_sees_to_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by_interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert not interrupt.came
    finally:
        signal.signal(signal.SIGINT, before)
