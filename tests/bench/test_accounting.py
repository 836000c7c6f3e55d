"""What a tree of processes costs, as the kernel accounts it."""

import json
import os
import subprocess
import sys
import time

from bench.accounting import Meter

BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
"""
LIVING_CHILD = (
    BURN
    + """
burn(0.15)
memory = bytearray(30 << 20)
print("done", flush=True)
import sys
sys.stdin.readline()
"""
)
ENDED_GRANDCHILD = BURN + "burn(0.1)"
MIDDLE = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {ENDED_GRANDCHILD!r}], check=True)
exec({LIVING_CHILD!r})
"""
PARENT = f"""
import json, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {MIDDLE!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(json.dumps([os.getpid(), child.pid]), flush=True)
sys.stdin.readline()
child.communicate(b"\\n")
"""


def test_the_whole_tree_is_counted_with_those_that_have_ended():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        pids = json.loads(parent.stdout.readline())
        meter = Meter(parent.pid)
        assert sorted(meter.family()) == sorted(pids)
        parents, childs = (meter.each_cpu_s()[pid] for pid in pids)
        assert childs >= 0.14 > parents
        # 150 ms of the child that lives, and 100 ms of one that it has waited for, which the kernel counts in ticks.
        assert meter.cpu_s() >= 0.23
        assert meter.peak_mib() > 30
        assert 30 < meter.pss_mib() <= meter.peak_mib()
    finally:
        parent.communicate(b"\n")
    assert parent.returncode == 0


def test_what_a_process_did_before_is_not_in_the_difference():
    meter, began_s = Meter(os.getpid()), time.process_time()
    before = meter.cpu_s()
    assert 0 <= meter.cpu_s() - before < 0.2 + time.process_time() - began_s
