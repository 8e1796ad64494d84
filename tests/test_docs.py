"""The pages of docs/: their code runs as it is printed, their links and paths lead somewhere."""

import re
from pathlib import Path

import pytest

import lightlike as ll

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUNNABLE = [page for page in PAGES if "```python" in page.read_text()]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_a_page_runs_as_it_is_printed(page, tmp_path, monkeypatch):
    if page.stem == "huggingface":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    scope: dict = {}
    exec("\n".join(blocks), scope)
    assert scope["ll"] is ll


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing


def test_tests_that_the_theory_page_names_exist():
    named = re.findall(r"`(\w+/test_\w+\.py)`", (ROOT / "docs" / "theory.md").read_text())
    assert named
    assert not [name for name in named if not (ROOT / "tests" / name).exists()]


def test_functions_that_the_theory_page_names_exist():
    page = (ROOT / "docs" / "theory.md").read_text()
    for path in re.findall(r"`ll\.([\w.]+)", page):
        found = ll
        for name in path.split("."):
            found = getattr(found, name)


def test_the_navigation_names_every_page():
    named = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(named) == sorted(page.name for page in PAGES)
