"""What the sections `metrics`, `otlp` and `traces` accept, and what is said of the rest."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from vaultd.cli import check_config
from vaultd.config import ConfigError, load_settings
from vaultd.dev import create_dev_directory


def written(directory, **sections):
    config = create_dev_directory(directory, "127.0.0.1:0")
    document = {**yaml.safe_load(config.read_text()), **sections}
    config.write_text(yaml.safe_dump(document))
    return config


def test_nothing_listens_and_nothing_is_sent_unless_it_is_asked_for(tmp_path):
    settings = load_settings(written(tmp_path))
    assert (settings.metrics.listen, settings.otlp.endpoint) == ("", "")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"metrics": {"listen": "9464"}}, "metrics.listen"),
        ({"metrics": {"listen": "127.0.0.1:0", "max_vaults": -1}}, "metrics.max_vaults"),
        ({"metrics": {"push_interval_s": 10}}, "metrics.push_interval_s: set otlp.endpoint"),
        ({"traces": {"ratio": 0.5}}, "traces.ratio: set otlp.endpoint"),
        ({"traces": {"ratio": 1.5}}, "traces.ratio"),
        ({"otlp": {"endpoint": "collector:4317"}}, "otlp.endpoint"),
        ({"otlp": {"endpoint": "http://c:4317", "ca": "ca.crt"}}, "for an endpoint of https"),
        ({"otlp": {"endpoint": "https://c:4317", "certificate": "c.crt"}}, "certificate and key go together"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, sections, said):
    with pytest.raises(ConfigError, match=said):
        load_settings(written(tmp_path, **sections))


def test_check_config_reads_the_collectors_files(tmp_path):
    config = written(tmp_path, otlp={"endpoint": "https://c:4317", "ca": "nowhere.crt"})
    done = CliRunner().invoke(check_config, ["--config", str(config)])
    assert done.exit_code == 1
    assert "otlp.ca: " in str(done.output)
    assert "cannot be read" in str(done.output)


def test_dev_keeps_where_its_metrics_are(tmp_path):
    create_dev_directory(tmp_path, "127.0.0.1:0", metrics="127.0.0.1:9464")
    assert load_settings(create_dev_directory(tmp_path, "127.0.0.1:0")).metrics.listen == "127.0.0.1:9464"
