"""Every factor against its own entries: columns, products, joins and inner products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlike.metric.contractions import Dense, Grouped, Lookup, Outer, Split, Total, add_up
from lightlike.metric.contractions.factor import Weighted, by_sample
from lightlike.metric.contractions.grouped import Blank
from oracles.networks import generator, normal

sizes = st.integers(1, 4)
seeds = st.integers(0, 9999)
FORMS = ["none", "zero positions", "one position a row", "runs of rows", "causal", "unsorted"]


def random(shape, low, high, seed):
    return torch.randint(low, high, shape, generator=generator(seed))


def touch(g, form, seed):
    """Gradients (k, s, P, out) that reach only some positions."""
    k, s, p, _ = g.shape
    if form == "zero positions":
        return g * random((1, s, p, 1), 0, 2, seed)
    if form in ("one position a row", "runs of rows"):
        runs = max(1, k // 2) if form == "runs of rows" else k
        own = random((runs, s), -1, p, seed).repeat_interleave(-(-k // runs), 0)[:k]
        return g * (own[..., None] == torch.arange(p))[..., None]
    if form in ("causal", "unsorted"):
        ends = random((k,), 0, p + 1, seed)
        ends = ends.sort().values if form == "causal" else ends
        return g * (torch.arange(p) < ends[:, None])[:, None, :, None]
    return g


@st.composite
def outers(draw, k=None, s=None, shape=None, bias=None, transposed=None, most=4):
    """An outer product of a weight (out, in) and perhaps a bias; `shape` fixes in, out."""
    k, s = k or draw(sizes), s or draw(sizes)
    ins, outs = shape or (draw(sizes), draw(sizes))
    bias = draw(st.booleans()) if bias is None else bias
    transposed = draw(st.booleans()) if transposed is None else transposed
    p, seed = draw(st.integers(1, most)), draw(seeds)
    x = normal(s, p, ins, seed=seed)
    if bias:
        x = torch.nn.functional.pad(x, (0, 1), value=1.0)
    g = touch(normal(k, s, p, outs, seed=seed + 1), draw(st.sampled_from(FORMS)), seed)
    return Outer(x, g, bias=bias, transposed=transposed)


@st.composite
def lookups(draw, k=None, s=None, shape=None):
    """Rows of a table; few tokens, so that they repeat within and between samples."""
    k, s = k or draw(sizes), s or draw(sizes)
    depth, size = shape or (draw(sizes), draw(sizes))
    p, seed = draw(st.integers(1, 5)), draw(seeds)
    return Lookup(random((s, p), 0, size, seed), normal(k, s, p, depth, seed=seed + 1), size)


@st.composite
def denses(draw, k=None, s=None, width=None):
    k, s, width = k or draw(sizes), s or draw(sizes), width or draw(st.integers(1, 9))
    return Dense(normal(k, s, width, seed=draw(seeds)))


@st.composite
def blanks(draw, k=None, s=None, width=None):
    like = torch.ones(1, dtype=torch.float64)
    return Blank(like, k or draw(sizes), s or draw(sizes), width or draw(sizes))


@st.composite
def factors(draw, k=None, s=None):
    """A factor of any class, alone or made of others."""
    k, s = k or draw(sizes), s or draw(sizes)
    kind = draw(st.sampled_from(["outer", "lookup", "dense", "total", "grouped", "weighted"]))
    if kind == "outer":
        return draw(outers(k, s))
    if kind == "lookup":
        return draw(lookups(k, s))
    if kind == "dense":
        return draw(denses(k, s))
    if kind == "grouped":
        some = st.one_of(outers(k, s), denses(k, s), blanks(k, s))
        return Grouped(draw(st.lists(some, min_size=1, max_size=3)))
    if kind == "weighted":
        inner = draw(st.one_of(outers(k, s), lookups(k, s)))
        return Weighted(inner, normal(inner.width, seed=draw(seeds)))
    return draw(totals(k, s))


@st.composite
def totals(draw, k=None, s=None, shape=None):
    """A table (out, in) that is looked up, multiplied with, and multiplied with transposed."""
    k, s = k or draw(sizes), s or draw(sizes)
    ins, outs = shape or (draw(sizes), draw(sizes))
    some = st.one_of(
        lookups(k, s, (ins, outs)),
        outers(k, s, (ins, outs), bias=False, transposed=False),
        outers(k, s, (outs, ins), bias=False, transposed=True),
        denses(k, s, ins * outs),
    )
    return Total(draw(st.lists(some, min_size=2, max_size=4)))


def entries(factor):
    """All entries (k, s, width), by definition."""
    if isinstance(factor, Outer):
        x, g = factor.x, factor.g
        w = x[..., :-1] if factor.bias else x
        full = torch.einsum("kspo,spi->ksoi", g, w)
        full = full.transpose(2, 3) if factor.transposed else full
        shift = torch.einsum("kspo,sp->kso", g, x[..., -1])
        return torch.cat([full.flatten(2), *([shift] if factor.bias else [])], -1)
    if isinstance(factor, Lookup):
        one_hot = (factor.tokens[..., None] == torch.arange(factor.size)).double()
        return torch.einsum("spv,kspd->ksvd", one_hot, factor.g).flatten(2)
    if isinstance(factor, Total):
        return sum(entries(part) for part in factor.parts)
    if isinstance(factor, Grouped):
        return torch.cat([entries(part) for part in factor.parts], -1)
    if isinstance(factor, Weighted):
        return entries(factor.inner) * factor.weights
    if isinstance(factor, Blank):
        return torch.zeros(factor.per_sample, factor.samples, factor.width, dtype=torch.float64)
    return factor.rows


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-12, atol=1e-11)


def check_products(factor, rows, seed):
    """Columns, products and the norm."""
    k, s, width = rows.shape
    assert (factor.per_sample, factor.samples, factor.width) == (k, s, width)
    assert same(factor.dense(), rows)
    start, stop = sorted(random((2,), 0, width + 1, seed).tolist())
    if start < stop:
        assert same(factor.columns(start, stop), rows[..., start:stop])
    v, u = normal(width, 2, seed=seed), normal(k, s, 2, seed=seed)
    assert same(factor.apply(v), rows @ v)
    assert same(factor.pull(u), torch.einsum("ksw,ksc->wc", rows, u))
    assert factor.squared_norm() == pytest.approx(float(rows.square().sum()), abs=1e-12)
    w = normal(width, seed=seed + 1)
    assert same(factor.scaled(w).dense(), rows * w)


def check_cross(mine, theirs):
    """Inner products, fresh and added, of each with itself and with the other."""
    for one, two in ((mine, theirs), (theirs, mine), (mine, mine)):
        expected = by_sample(entries(one)) @ by_sample(entries(two)).T
        left, right = one.settled(), two.settled()
        right = left if two is one else right
        # A settled factor may share parts with the other form, as tiles of rows never do.
        mixed = [] if two is one else [(left, two), (one, right)]
        for a, b in [(one, two), (left, right), *mixed]:
            for fresh in (True, False):
                out = torch.full_like(expected, float("nan") if fresh else 1.0)
                a.cross(b, out, fresh=fresh)
                found = out if fresh else out - 1.0
                low = (found.tril(), expected.tril()) if b is a else (found, expected)
                assert same(*low)


@settings(max_examples=120, deadline=None)
@given(factors(), seeds)
def test_factors_are_their_entries(factor, seed):
    rows = entries(factor)
    check_products(factor, rows, seed)
    check_products(factor.settled(), rows, seed)


@settings(max_examples=80, deadline=None)
@given(factors(), st.data())
def test_runs_of_samples_and_blanks(factor, data):
    rows = entries(factor)
    for form in (factor, factor.settled()):
        start = data.draw(st.integers(0, factor.samples - 1))
        length = data.draw(st.integers(1, factor.samples - start))
        part = form.narrow(start, length)
        assert part.form == form.form
        check_products(part, rows[:, start : start + length], 3)
        blank = form.blank(2)
        assert blank.form == form.form
        assert same(blank.dense(), torch.zeros_like(rows[:, :1]).expand(-1, 2, -1))
        joined = type(form).join([part, blank, form])
        expected = torch.cat([part.dense(), blank.dense(), rows], 1)
        check_products(joined, expected, 5)


@settings(max_examples=60, deadline=None)
@given(sizes, st.tuples(sizes, sizes), st.booleans(), st.booleans(), st.data())
def test_joins_of_unequal_lengths(k, shape, bias, transposed, data):
    some = outers(k, None, shape, bias, transposed)
    for each in (some, lookups(k, None, shape)):
        parts = data.draw(st.lists(each, min_size=2, max_size=4))
        expected = torch.cat([entries(part) for part in parts], 1)
        check_products(type(parts[0]).join(parts), expected, 1)
        settled = [part.settled() for part in parts]
        alike = [part for part in settled if part.form == settled[0].form]
        rows = torch.cat([part.dense() for part in alike], 1)
        joined = type(alike[0]).join(alike)
        check_products(joined, rows, 1)
        check_cross_of_joined(joined, rows)


def check_cross_of_joined(joined, rows):
    out = torch.full((rows.shape[0] * rows.shape[1],) * 2, float("nan"), dtype=torch.float64)
    joined.cross(joined, out, fresh=True)
    assert same(out.tril(), (by_sample(rows) @ by_sample(rows).T).tril())


@settings(max_examples=80, deadline=None)
@given(st.tuples(sizes, sizes), st.booleans(), st.booleans(), st.data())
def test_inner_products_of_outer_products(shape, bias, transposed, data):
    check_cross(*(data.draw(outers(None, None, shape, bias, transposed)) for _ in range(2)))


@settings(max_examples=80, deadline=None)
@given(st.tuples(sizes, sizes), st.data())
def test_inner_products_of_unlike_uses_of_one_weight(shape, data):
    ins, outs = shape
    uses = st.one_of(
        lookups(None, None, shape),
        outers(None, None, shape, bias=False, transposed=False),
        outers(None, None, (outs, ins), bias=False, transposed=True),
        totals(None, None, shape),
        denses(None, None, ins * outs),
    )
    check_cross(data.draw(uses), data.draw(uses))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=3), st.data())
def test_inner_products_group_by_group(shapes, data):
    def grouped():
        k, s = data.draw(sizes), data.draw(sizes)
        some = [
            st.one_of(outers(k, s, shape, False, False), blanks(k, s, shape[0] * shape[1]))
            for shape in shapes
        ]
        return Grouped([data.draw(part) for part in some])

    mine, theirs = grouped(), grouped()
    check_cross(mine, theirs)
    check_cross(mine, Dense(theirs.dense()))
    check_cross(mine, Grouped([Dense(theirs.dense())]))
    w = normal(mine.width, seed=1)
    check_cross(Weighted(mine, w), Weighted(theirs, w))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(64, 210), st.integers(1, 2), st.integers(1, 9), st.sampled_from(FORMS)
        ),
        min_size=2,
        max_size=2,
    ),
    sizes, st.integers(1, 5), st.booleans(), st.booleans(), seeds,
)  # fmt: skip
def test_many_rows_a_sample(sides, ins, outs, bias, transposed, seed):
    """Blocks of rows that reach equally far, on one side, both or none."""
    made = []
    for k, s, p, form in sides:
        x = normal(s, p, ins, seed=seed)
        x = torch.nn.functional.pad(x, (0, 1), value=1.0) if bias else x
        g = touch(normal(k, s, p, outs, seed=seed + k), form, seed)
        made.append(Outer(x, g, bias=bias, transposed=transposed))
    check_cross(*made)


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 200), st.integers(2, 12), st.integers(12, 40), st.booleans(), seeds)
def test_pairs_of_positions_of_wide_layers(k, p, wide, sort, seed):
    """Few positions of a wide layer, so that pairs are chosen, and rows of every reach."""
    ends = random((k,), 1, p + 1, seed)
    ends = ends.sort().values if sort else ends
    x, g = normal(2, p, wide, seed=seed), normal(k, 2, p, 3, seed=seed + 1)
    factor = Outer(x, g * (torch.arange(p) < ends[:, None])[:, None, :, None], bias=False)
    other = Outer(normal(1, p + 2, wide, seed=seed), normal(70, 1, p + 2, 3, seed=seed), bias=False)
    check_cross(factor, other)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.integers(1, 3), st.integers(1, 3), seeds)
def test_runs_that_share_a_position_become_samples(s, p, runs, length, width, seed):
    own = random((runs, s), 0, p, seed).repeat_interleave(length, 0)
    g = normal(runs * length, s, p, 2, seed=seed) * (own[..., None] == torch.arange(p))[..., None]
    factor = Outer(normal(s, p, width, seed=seed), g, bias=False)
    lean = factor.settled()
    used = {tuple(column.tolist()) for column in own.T}
    if any(len(set(column)) > 1 for column in used):
        assert isinstance(lean, Split)
        assert lean.finer.positions == 1
    assert same(lean.dense(), entries(factor))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=4), sizes, sizes, st.data())
def test_slices_add_up_side_by_side(cuts, k, s, data):
    """Factors on the same or other columns of three, or on all of them."""
    widths = [4, 2, 6]
    made = []
    for chosen in cuts:
        parts = [Blank(torch.ones(1).double(), k, s, width) for width in widths]
        parts[chosen] = data.draw(outers(k, s, (widths[chosen], 1), False, False))
        made.append(Grouped(parts))
    if data.draw(st.booleans()):
        made.append(data.draw(st.sampled_from([Grouped, Total]))([data.draw(denses(k, s, 12))]))
    total = add_up(made)
    assert same(total.dense(), sum(entries(part) for part in made))
    check_cross_of_joined(total, total.dense())
    if all(isinstance(part, Grouped) and len(part.parts) == 3 for part in made):
        assert isinstance(total, Grouped)
