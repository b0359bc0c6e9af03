"""Our entry in the file that names a SkyPilot server's plugins."""

from pathlib import Path

import pytest
import yaml

from launcher import plugin_file
from launcher.errors import SkyPilotError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sky" / "plugins.yaml"
    monkeypatch.setenv("SKYPILOT_SERVER_PLUGINS_CONFIG", str(path))
    return path


def test_installing_twice_is_installing_once(file: Path) -> None:
    assert "now names" in plugin_file.install()
    once = file.read_text()
    assert "nothing was changed" in plugin_file.install()
    assert file.read_text() == once
    assert yaml.safe_load(once) == {"plugins": [{"class": "launcher.recovery.Plugin"}]}


def test_uninstalling_leaves_what_others_wrote(file: Path) -> None:
    others = {"controller_wheel_path": "/wheels", "plugins": [{"class": "theirs.Plugin", "parameters": {"a": 1}}]}
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(others))
    plugin_file.install()
    assert "any more" in plugin_file.uninstall()
    assert yaml.safe_load(file.read_text()) == others
    assert "nothing was changed" in plugin_file.uninstall()


@pytest.mark.parametrize("text", ["[1, 2", "plugins: 3", "- a"])
def test_a_file_that_is_not_understood_is_left_as_it_is(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(SkyPilotError, match="left as it"):
        plugin_file.install()
    assert file.read_text() == text
