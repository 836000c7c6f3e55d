"""Resource names: what is remembered of them."""

from __future__ import annotations

import pytest

from vaultd import names
from vaultd.errors import InvalidArgument


@pytest.mark.parametrize("parse", [names.parse_key_or_version_name, names.parse_secret_or_version_name])
def test_a_name_that_is_too_long_is_refused_and_not_kept(parse):
    remembered = [each.cache_info().currsize for each in (names._parsed_key, names._parsed_secret)]
    with pytest.raises(InvalidArgument):
        parse("vaults/default/keys/" + "k" * names.MAX_NAME_CHARS)
    assert remembered == [each.cache_info().currsize for each in (names._parsed_key, names._parsed_secret)]
