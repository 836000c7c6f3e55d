"""Percentiles, spreads, and ratios of neighbours."""

import base64
import struct

import pytest

from bench.slices import Slice, Spread, items_per_s, latencies_of, percentile_ms, ratio


def slice_of(cpu_s: float, calls: int = 100, items: int = 1, elapsed_s: float = 1.0, latencies_us=()) -> Slice:
    return Slice(calls, elapsed_s, cpu_s, 0.0, 0.0, latencies_us, items=items)


def test_percentiles_are_those_of_every_call():
    latencies = [microseconds * 1_000 for microseconds in range(1, 1_001)]
    assert percentile_ms(latencies, 50.0) == 501
    assert percentile_ms(latencies, 99.0) == 991
    assert percentile_ms(latencies, 95.0) == 951


def test_too_few_calls_say_nothing_of_a_percentile():
    assert percentile_ms([1] * 1_999, 99.9) is None
    assert percentile_ms([1_000] * 2_000, 99.9) == 1
    with pytest.raises(ValueError, match="199 calls say nothing of their p99"):
        slice_of(1.0, latencies_us=[1] * 199).percentile_ms(99.0)


def test_a_ratio_compares_neighbours_so_that_a_drifting_machine_cancels_out():
    ours = [slice_of(1.0), slice_of(2.0), slice_of(4.0)]
    theirs = [slice_of(2.0), slice_of(4.0), slice_of(8.0)]
    found = ratio(ours, theirs)
    assert found.median == 0.5
    assert found.low == found.high == 0.5


def test_slices_without_a_neighbour_are_no_pair():
    with pytest.raises(ValueError, match="longer"):
        ratio([slice_of(1.0)], [slice_of(1.0), slice_of(1.0)])


def test_operations_are_what_is_compared_and_not_calls():
    batch, single = slice_of(1.0, calls=100, items=10), slice_of(0.5, calls=100)
    assert ratio([batch], [single]).median == pytest.approx(0.2)
    assert ratio([batch], [single], items_per_s).median == pytest.approx(10)


def test_half_of_the_values_lie_between_the_quartiles():
    assert Spread.of([1, 2, 3, 4, 100]).as_dict() == {"median": 3, "low": 2, "high": 4, "values": [1, 2, 3, 4, 100]}
    assert Spread.of([7]).as_dict() == {"median": 7, "low": 7, "high": 7, "values": [7]}


def test_latencies_are_32_bits_little_endian():
    assert list(latencies_of(base64.b64encode(struct.pack("<3I", 1, 256, 70_000)).decode())) == [1, 256, 70_000]
