"""Every test of the API runs on both hosts, but for these."""

import re
from pathlib import Path

API = Path(__file__).resolve().parents[1] / "api"
GRPC_ALONE = {"test_the_end_of_a_connection_is_survived_with_the_token"}
MARKED = re.compile(r"@pytest\.mark\.grpc_host\(\"[^\"]+\"\)\n(?:@.*\n)*(?:async )?def (test_\w+)")


def test_what_runs_on_one_host_alone_is_listed_here_and_says_why():
    sources = [path.read_text() for path in API.glob("*.py")]
    assert {name for source in sources for name in MARKED.findall(source)} == GRPC_ALONE
    assert sum(source.count("grpc_host") for source in sources) == len(GRPC_ALONE)


def test_no_test_asks_on_which_host_it_is():
    assert not [path.name for path in API.glob("*.py") if "harness.HOST" in path.read_text()]
