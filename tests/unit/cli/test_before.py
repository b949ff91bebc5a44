"""`config` prints settings that read back; `check` and `devices` have tests in preflight."""

from jobs import call, finished
from spoilt import refused

from amst_hpc.config import Config
from amst_hpc.settings import load_config


def test_config_prints_the_defaults_and_what_changes_them(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(finished(call("config")).stdout)
    assert load_config(path) == Config()
    changed = call("config", "--config", path, "--set", "template.radius=3")
    path.write_text(finished(changed).stdout)
    assert load_config(path) == load_config(None, ["template.radius=3"])


def test_config_refuses_what_align_refuses():
    refused(call("config", "--set", "output.colour=1"), "output.colour: no such key")
