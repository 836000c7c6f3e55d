"""Resource names: what is remembered of them."""

from __future__ import annotations

import pytest

from vaultd import names
from vaultd.errors import InvalidArgument


@pytest.mark.parametrize("parse", [names.parse_key_or_version_name, names.parse_secret_or_version_name])
def test_a_name_that_is_too_long_is_refused_and_not_kept(parse):
    caches = (names.parse_key_or_version_name, names._parsed_key, names._parsed_secret)
    remembered = [each.cache_info().currsize for each in caches]
    with pytest.raises(InvalidArgument):
        parse("vaults/default/keys/" + "k" * names.MAX_NAME_CHARS)
    assert remembered == [each.cache_info().currsize for each in caches]


def test_a_name_is_one_object_for_every_field_and_the_error_names_its_own():
    name = "vaults/default/keys/k/versions/3"
    assert names.parse_key_or_version_name(name) is names.parse_key_or_version_name(name, "source_name")
    for field in ("name", "source_name", "name"):
        with pytest.raises(InvalidArgument, match=f"^{field} must be"):
            names.parse_key_or_version_name("vaults/default/keys/K", field)
