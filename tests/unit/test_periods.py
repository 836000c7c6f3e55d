"""What is promised "within a second" is looked for often enough.  That it is found, other tests prove without a clock."""

import pytest

from vaultd.config import StoreSection
from vaultd.wiring.server import AUDIT_CHECK_S, FILES_CHECK_S, STREAMS_CHECK_S


@pytest.mark.parametrize(
    "period_s",
    [AUDIT_CHECK_S, FILES_CHECK_S, STREAMS_CHECK_S, StoreSection.model_fields["feed_poll_ms"].default / 1000],
    ids=["audit log", "files", "open streams", "changes of other processes"],
)
def test_a_promise_of_a_second_has_two_looks(period_s):
    assert 2 * period_s <= 1.0
