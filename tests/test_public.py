import re
from pathlib import Path

import pytest

import lightlike as ll

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists_and_is_documented():
    for name in ll.__all__:
        assert getattr(ll, name).__doc__, name


def test_the_readme_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope: dict = {}
    exec("\n".join(blocks), scope)
    assert int(scope["m"].dimension) == 50
    assert scope["m"].parameters == 67
    assert "dimension" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda p: p.name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 350
