"""Imported by every process that has this directory in its path.

A mutation waits half a second at most for the other workers, and a machine may stand still for longer: here it waits for them.
"""

from vaultd.workers import siblings

siblings.SETTLE_S = 60.0
