"""What a report says, and what it leaves alone."""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import math
import re
import sys
import tomllib
from html.parser import HTMLParser
from subprocess import run
from urllib.parse import unquote

import pytest
import torch

import lightlike as ll
from lightlike.assess.diagnosis import Check
from lightlike.errors import ChoiceError, StoreError
from lightlike.figures.length import plot_length
from lightlike.figures.spectrum import plot_spectrum
from lightlike.present.reproducing import reproduction_section
from lightlike.runfile import TABLES
from present.conftest import data, net

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """The text and the attributes of a page; complains of tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.code: dict[str, str] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.now = dict(attrs)["id"]

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if self.open and self.open[-1] == "pre":
            self.code[self.now] = self.code.get(self.now, "") + data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def read(result, folder, **options) -> Page:
    return Page(ll.report(result, folder / "report.html", **options).read_text(encoding="utf-8"))


def csv_links(page: Page) -> dict[str, str]:
    """File name → address of every download."""
    pairs = zip(page.attributes, page.attributes[1:], strict=False)
    return {value: uri for (_, name, value), (_, _, uri) in pairs if name == "download"}


def table_of(uri: str) -> list[dict[str, str]]:
    """The rows of a CSV in a data URI."""
    return list(csv.DictReader(io.StringIO(unquote(uri.partition(",")[2]))))


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory) -> Page:
    return read(measured, tmp_path_factory.mktemp("page"))


def test_it_says_what_was_measured(measured, page):
    """Numbers with their kinds, both units, every layer, every check, the whole record."""
    length = measured.length
    for expected in (
        f"{int(measured.dimension):,}",
        measured.dimension.kind,
        f"{length.total:,.1f} nats",
        f"{length.to('bits').total:,.1f} bits",
        measured.record["fingerprint"]["data"],
        measured.record["fingerprint"]["model"],
        *(layer.name for layer in measured.layers),
        *(check.name for check in measured.checks),
        *(check.evidence for check in measured.checks),
    ):
        assert expected in page.text, expected


def test_it_needs_nothing_else(page):
    """No address but data and places on the page; small; ids are unique."""
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert str(value).startswith(("data:", "#")), (tag, name, value)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    places = {str(value)[1:] for _, name, value in page.attributes
              if name.endswith("href") and str(value).startswith("#")}  # fmt: skip
    assert places <= set(ids)


def test_it_is_small(tmp_path, measured):
    """Well below 2 MB, with a spectrum of 20,000 values too."""
    values = measured.spectrum.values
    many = torch.logspace(0, -12, 20_000, dtype=torch.float64)
    spectrum = ll.Spectrum(dataclasses.replace(values, eigenvalues=many, shape=(20_000, 20_000)))
    large = dataclasses.replace(measured, spectrum=spectrum)
    assert ll.report(large, tmp_path / "large.html").stat().st_size < 2e6
    assert ll.report(measured, tmp_path / "small.html").stat().st_size < 3e5


def test_figures_give_their_numbers_away(measured, page):
    """CSV of the spectrum: every eigenvalue, to ten digits."""
    rows = table_of(csv_links(page)["spectrum.csv"])
    found = [float(row["eigenvalue"]) for row in rows]
    assert found == pytest.approx(measured.spectrum.eigenvalues.tolist(), rel=1e-9)


def test_without_labels_there_is_no_length(unlabelled, tmp_path):
    """Absent, not zero; layers not measured are a dash."""
    page = read(unlabelled, tmp_path)
    assert "no description length" in page.text
    assert "— not measured: without labels there is no fit" in page.text
    assert ("a", "download", "length.csv") not in page.attributes
    assert "0.0 nats" not in page.text


def test_failed_checks_come_first(measured, tmp_path):
    """In the verdict, and ahead of all that passed."""
    bad = Check("true derivatives", "failed", "They are not.", "Mend them.")
    checks = (*(c for c in measured.checks if c.name != bad.name), bad)
    page = read(dataclasses.replace(measured, checks=checks), tmp_path)
    assert "Failed checks: true derivatives." in page.text
    assert page.text.index("They are not. Mend them.") < page.text.index(checks[0].evidence)


def test_a_comparison(compared, tmp_path):
    """All networks, their differences and errors; names are text."""
    page = read(compared, tmp_path)
    for entry in compared.entries:
        assert entry.name in page.text
        assert f" {entry.total:,.1f} {entry.total / math.log(2):,.1f} " in page.text
    assert "<i>" not in {f"<{tag}>" for tag, *_ in page.attributes}


def test_a_training_run(followed, tmp_path):
    """Every snapshot; of a long run a part, evenly spread."""
    page = read(followed, tmp_path)
    for snapshot in followed.snapshots:
        assert f" {snapshot.length:,.1f} {snapshot.length / math.log(2):,.1f} " in page.text
    shortest = min(followed.snapshots, key=lambda s: s.length)
    assert f"was shortest at step {shortest.step}, {shortest.length:,.1f}" in page.text
    many = [dataclasses.replace(followed.snapshots[0], step=step) for step in range(1000)]
    page = read(ll.History(tuple(many)), tmp_path)
    assert "1,000 snapshots, 40 of them shown" in page.text
    assert sum(tag == "th" and value == "row" for tag, _, value in page.attributes) == 40


def test_sources_and_saturation_appear_by_themselves(measured, page):
    """Each source and each subset of observations is there, in the table and in the CSV."""
    e, s = measured.explanation, measured.saturation
    links = csv_links(page)
    rows = table_of(links["sources.csv"])
    assert [(r["kind"], r["where"], int(r["dimension"])) for r in rows] == [
        *((x.kind, x.where, x.dimension) for x in e.sources),
        ("unexplained", "", e.unexplained),
    ]
    assert sum(int(r["dimension"]) for r in rows) == measured.parameters - int(measured.dimension)
    for source in e.listed:
        assert (
            f"{source.kind} {source.where or 'the whole model'} {source.dimension:,}" in page.text
        )
    rows = table_of(links["saturation.csv"])
    assert [int(r["observations"]) for r in rows] == list(s.sizes)
    assert [int(r["dimension"]) for r in rows] == [int(d) for d in s.dimensions]
    assert s.verdict in page.text
    assert "proven twice" in page.text


def test_what_was_not_measured_is_a_dash(unlabelled, tmp_path):
    """With how to ask for it, and no figure of nothing."""
    page = read(unlabelled, tmp_path)
    for name in ("explain", "saturation"):
        assert f"— not measured. Ask with ll.measure(…, {name}=True)" in page.text
    assert not {"sources.csv", "saturation.csv"} & set(csv_links(page))


def test_how_to_reproduce_it(measured, page):
    """The run file is TOML that a run file may hold; the call has the same options."""
    asked = tomllib.loads(page.code["reproduce-code-2"])
    assert {name: set(table) <= TABLES[name] for name, table in asked.items()} == {
        "model": True, "data": True, "measure": True,
    }  # fmt: skip
    assert asked["measure"] == {"likelihood": "categorical", "explain": True, "saturation": True}
    call = ast.parse(page.code["reproduce-code-1"]).body[-1].value
    assert {k.arg: k.value.value for k in call.keywords} == {"explain": True, "saturation": True}
    assert [ast.unparse(a) for a in call.args] == ["model", "data", "'categorical'"]
    for value in measured.record["versions"].values():
        assert value in page.text


@pytest.mark.parametrize("asked", [
    {"method": "svd", "units": "bits", "seed": 7, "parameters": ["0.weight"]},
    {"prior": ll.priors.Isotropic("evidence"), "layers": False},
    {"prior": ll.priors.Isotropic(0.5), "method": ll.Sketch(draws=1, repetitions=3)},
])  # fmt: skip
def test_a_reproduced_call_asks_the_same(asked):
    """The printed call, evaluated, has the arguments that were given; so has the run file."""
    likelihood = ll.likelihoods.Categorical(ignore_index=-1)
    m = ll.measure(net(3), data(), likelihood, progress=False, **asked)
    python, toml, _ = (code.text for code in reproduction_section(m).codes)
    call = ast.parse(python).body[-1].value
    scope = {"ll": ll}
    found = {k.arg: eval(ast.unparse(k.value), scope) for k in call.keywords}
    assert found == asked
    assert eval(ast.unparse(call.args[2]), scope) == likelihood
    written = tomllib.loads(toml)["measure"]
    assert written.pop("likelihood") == {"name": "categorical", "ignore_index": -1}
    prior = written.pop("prior", None)
    assert (prior is None) == ("prior" not in asked)
    assert prior is None or prior["variance"] == asked["prior"].variance
    if isinstance(asked.get("method"), ll.Sketch):
        assert ll.Sketch(**written.pop("method")) == asked["method"]
    assert written.items() <= asked.items()


def test_more_figures(measured, tmp_path):
    """As many as given, with their captions."""
    figures = {"Once & more": plot_spectrum(measured.spectrum, measured.dimension)}
    assert "Once & more" in read(measured, tmp_path, figures=figures).text


def test_other_files_are_not_overwritten(compared, tmp_path):
    """Reports are; anything else only if asked for."""
    target = tmp_path / "report.html"
    ll.report(compared, target)
    ll.report(compared, target, title="Second")
    assert "Second" in target.read_text(encoding="utf-8")
    target.write_text("my notes")
    with pytest.raises(StoreError, match="not a report"):
        ll.report(compared, target)
    assert target.read_text() == "my notes"
    ll.report(compared, target, overwrite=True)
    with pytest.raises(StoreError, match="does not exist"):
        ll.report(compared, tmp_path / "nowhere" / "report.html")


def test_other_things_are_refused(tmp_path, measured, unlabelled):
    """With the choices."""
    with pytest.raises(ChoiceError, match="a Measurement, a Comparison, a History"):
        ll.report({"a": measured}, tmp_path / "report.html")
    with pytest.raises(ChoiceError, match="labels"):
        plot_length(unlabelled.length)


def test_the_steps_of_a_length_add_up(measured):
    """Each begins where the one before ends; the last is the total."""
    columns = plot_length(measured.length, measured.criteria).columns
    assert columns["start"][1:4] == columns["stop"][:3]
    assert columns["stop"][3] == pytest.approx(measured.length.total)
    assert sum(columns["value"][:4]) == pytest.approx(columns["value"][4])


def test_the_library_loads_without_what_draws():
    """matplotlib is loaded when something is drawn."""
    code = "import lightlike, sys; sys.exit('matplotlib' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
