from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightlike.errors import DataError
from lightlike.problem.batch import Batch, as_batch
from lightlike.problem.data import Stream

few = settings(max_examples=25, deadline=None)
N = 7
X = torch.linspace(-1, 1, 3 * N).reshape(N, 3)
Z = torch.linspace(2, 3, 3 * N).reshape(N, 3)
Y = torch.arange(N) % 3
Pair = namedtuple("Pair", "a b")
Example = namedtuple("Example", "inputs labels")


class Rows(Dataset):
    def __init__(self, row, size=N):
        self.row, self.size = row, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.row(index)


class Flow(IterableDataset):
    def __init__(self, row):
        self.row = row

    def __iter__(self):
        return map(self.row, range(N))


class Again:
    """Iterable as often as one likes, and nothing more."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def cuts(item):
    return [item(slice(0, 3)), item(slice(3, 6)), item(slice(6, 7))]


def read(data, batch_size=3):
    """Everything a model `x` or `a, b` sees, and all labels, in order."""
    seen, labels = [], []
    for batch in Stream(data, batch_size):
        seen.append(call(*batch.args, **batch.kwargs))
        labels.append(batch.targets)
    unlabelled = [label is None for label in labels]
    assert all(unlabelled) or not any(unlabelled)
    return torch.cat(seen), None if unlabelled[0] else torch.cat(labels)


def call(a, b=None):
    return a if b is None else torch.cat([a, b], -1)


LABELLED = {
    "pair": lambda: (X, Y),
    "list_pair": lambda: [X, Y],
    "numpy": lambda: (X.numpy(), Y.numpy()),
    "numpy_and_tensor": lambda: (X.numpy(), Y),
    "reversed_numpy": lambda: (X.flip(0).numpy()[::-1], Y.flip(0).numpy()[::-1]),
    "dict": lambda: {"a": X, "labels": Y},
    "dict_label": lambda: {"label": Y, "a": X},
    "dict_numpy": lambda: {"a": X.numpy(), "labels": Y.numpy()},
    "dict_none": lambda: {"a": X, "b": None, "labels": Y},
    "user_dict": lambda: UserDict(a=X, labels=Y),
    "dict_and_labels": lambda: ({"a": X}, Y),
    "tuple_and_labels": lambda: ((X,), Y),
    "dataset": lambda: TensorDataset(X, Y),
    "dataset_of_ints": lambda: Rows(lambda i: (X[i], int(Y[i]))),
    "dataset_of_dicts": lambda: Rows(lambda i: {"a": X[i], "labels": Y[i]}),
    "dataset_of_numpy": lambda: Rows(lambda i: (X[i].numpy(), Y[i].numpy())),
    "iterable_dataset": lambda: Flow(lambda i: (X[i], Y[i])),
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=3),
    "loader_of_dicts": lambda: DataLoader(Rows(lambda i: {"a": X[i], "labels": Y[i]}), 4),
    "loader_of_flow": lambda: DataLoader(Flow(lambda i: (X[i], Y[i])), batch_size=5),
    "loader_unbatched": lambda: DataLoader(cuts(lambda c: (X[c], Y[c])), batch_size=None),
    "list": lambda: cuts(lambda c: (X[c], Y[c])),
    "list_of_one": lambda: [(X, Y)],
    "tuple_of_two": lambda: ((X[:4], Y[:4]), (X[4:], Y[4:])),
    "list_of_lists": lambda: cuts(lambda c: [X[c], Y[c]]),
    "list_of_dicts": lambda: cuts(lambda c: {"a": X[c], "labels": Y[c]}),
    "list_of_two_dicts": lambda: [{"a": X[c], "labels": Y[c]} for c in (slice(2), slice(2, N))],
    "list_of_named": lambda: cuts(lambda c: Example(X[c], Y[c])),
    "list_of_numpy": lambda: cuts(lambda c: (X[c].numpy(), Y[c].tolist())),
    "again": lambda: Again(cuts(lambda c: (X[c], Y[c]))),
    "again_of_dicts": lambda: Again(cuts(lambda c: ({"a": X[c]}, Y[c]))),
}
UNLABELLED = {
    "tensor": lambda: X,
    "numpy": lambda: X.numpy(),
    "single": lambda: (X,),
    "single_list": lambda: [X],
    "single_numpy": lambda: (X.numpy(),),
    "dict": lambda: {"a": X},
    "single_dict": lambda: ({"a": X},),
    "pair_without_labels": lambda: (X, None),
    "dict_without_labels": lambda: {"a": X, "labels": None},
    "dataset": lambda: TensorDataset(X),
    "dataset_of_tensors": lambda: Rows(lambda i: X[i]),
    "loader": lambda: DataLoader(TensorDataset(X), batch_size=3),
    "list_of_tensors": lambda: cuts(lambda c: X[c]),
    "list_of_singles": lambda: cuts(lambda c: (X[c],)),
    "list_of_dicts": lambda: cuts(lambda c: {"a": X[c]}),
    "again": lambda: Again(cuts(lambda c: X[c].numpy())),
}
TWO_INPUTS = {
    "tuple": lambda: ((X, Z), Y),
    "numpy": lambda: ((X.numpy(), Z), Y.numpy()),
    "dict_pair": lambda: ({"b": Z, "a": X}, Y),
    "dict": lambda: {"b": Z, "a": X, "labels": Y},
    "named": lambda: (Pair(X, Z), Y),
    "dataset": lambda: Rows(lambda i: ((X[i], Z[i]), Y[i])),
    "dataset_of_dicts": lambda: Rows(lambda i: ({"b": Z[i], "a": X[i]}, Y[i])),
    "iterable_dataset": lambda: Flow(lambda i: ((X[i], Z[i]), Y[i])),
    "loader": lambda: DataLoader(Rows(lambda i: ((X[i], Z[i]), Y[i])), batch_size=4),
    "list": lambda: cuts(lambda c: ((X[c], Z[c]), Y[c])),
    "list_of_dicts": lambda: cuts(lambda c: {"b": Z[c], "a": X[c], "labels": Y[c]}),
    "again": lambda: Again(cuts(lambda c: ([X[c], Z[c]], Y[c]))),
}


@pytest.mark.parametrize("form", LABELLED.values(), ids=LABELLED)
def test_labelled_forms(form):
    seen, labels = read(form())
    assert torch.equal(seen, X)
    assert torch.equal(labels, Y)


@pytest.mark.parametrize("form", UNLABELLED.values(), ids=UNLABELLED)
def test_unlabelled_forms(form):
    seen, labels = read(form())
    assert torch.equal(seen, X)
    assert labels is None


@pytest.mark.parametrize("form", TWO_INPUTS.values(), ids=TWO_INPUTS)
def test_forms_with_two_inputs(form):
    seen, labels = read(form())
    assert torch.equal(seen, torch.cat([X, Z], -1))
    assert torch.equal(labels, Y)


@pytest.mark.parametrize("form", [*LABELLED.values(), *UNLABELLED.values(), *TWO_INPUTS.values()])
def test_streams_start_again(form):
    stream = Stream(form(), 3)
    first, again = ([list(b.tensors()) for b in stream] for _ in range(2))
    assert len(first) == len(again)
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True)
               for a, b in zip(one, two, strict=True))  # fmt: skip
    assert stream.fingerprint() == stream.fingerprint()


@few
@given(st.integers(1, 2 * N))
def test_any_batch_size_gives_the_same_stream(size):
    sizes = [len(batch.targets) for batch in Stream((X, Y), size)]
    assert sizes == [size] * (N // size) + [N % size] * (N % size > 0)
    assert torch.equal(read((X, Y), size)[0], X)
    assert torch.equal(read((X, Y), size)[1], Y)


def test_datasets_are_cut_without_shuffling():
    (first, *_rest) = Stream(TensorDataset(X, Y), 4)
    assert torch.equal(first.args[0], X[:4])


def test_other_arguments_are_passed_on():
    for batch in Stream({"a": X, "flag": False, "name": "here", "deep": {"b": (Z, 3)}}, 3):
        size = len(batch.kwargs["a"])
        assert batch.kwargs["flag"] is False
        assert batch.kwargs["name"] == "here"
        b, three = batch.kwargs["deep"]["b"]
        assert (len(b), three) == (size, 3)
        assert len(list(batch.tensors())) == 2


ONCE = {
    "generator": lambda: ((X[i], Y[i]) for i in range(N)),
    "iterator": lambda: iter([(X, Y)]),
    "loader_iterator": lambda: iter(DataLoader(TensorDataset(X, Y))),
    "zip": lambda: zip(X, Y, strict=True),
    "map": lambda: map(tuple, [(X, Y)]),
}


@pytest.mark.parametrize("form", ONCE.values(), ids=ONCE)
def test_what_can_be_read_once_is_refused(form):
    with pytest.raises(DataError, match="only once"):
        Stream(form())


@pytest.mark.parametrize("data", [None, 3, 2.5, "mnist", object()])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(DataError, match=f"type {type(data).__name__} are not understood"):
        Stream(data)


EMPTY = {
    "list": lambda: [],
    "tuple": lambda: (),
    "tensor": lambda: X[:0],
    "pair": lambda: (X[:0], Y[:0]),
    "dict": lambda: {"a": X[:0], "labels": Y[:0]},
    "dataset": lambda: Rows(lambda i: X[i], size=0),
    "loader": lambda: DataLoader(TensorDataset(X[:2]), batch_size=3, drop_last=True),
    "again": lambda: Again([]),
}


@pytest.mark.parametrize("form", EMPTY.values(), ids=EMPTY)
def test_no_batch(form):
    with pytest.raises(DataError, match="no batch"):
        list(Stream(form()))


def test_a_source_that_dries_up():
    stream = Stream(Again(iter([(X, Y)])))
    assert len(list(stream)) == 1
    with pytest.raises(DataError, match="start afresh"):
        list(stream)


NO_TENSOR = {
    "no_key": lambda: {},
    "only_options": lambda: {"flag": True},
    "only_labels": lambda: {"labels": Y},
}


@pytest.mark.parametrize("form", NO_TENSOR.values(), ids=NO_TENSOR)
def test_no_input(form):
    with pytest.raises(DataError, match="no input tensor"):
        Stream(form())


UNEVEN = {
    "labels": lambda: (X, Y[:5]),
    "inputs": lambda: ((X, Z[:5]), Y),
    "dict": lambda: {"a": X, "b": Z[:5]},
    "nested": lambda: {"a": X, "b": {"c": [Z[:5]]}},
    "dict_labels": lambda: {"a": X, "labels": Y[:5]},
}


@pytest.mark.parametrize("form", UNEVEN.values(), ids=UNEVEN)
def test_different_lengths(form):
    with pytest.raises(DataError, match=r"different lengths: \[5, 7\]"):
        Stream(form())


def test_one_label_for_all_is_refused():
    with pytest.raises(DataError, match="different lengths"):
        Stream((X, torch.tensor(1)))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ((X, Z, Y), "tuple of 3 items"),
        ([], "list of 0 items"),
        ("row", "A batch is a str"),
        (3, "A batch is a int"),
        (None, "A batch is a NoneType"),
        ({X}, "A batch is a set"),
    ],
    ids=["triple", "nothing", "str", "int", "none", "set"],
)
def test_batches_that_are_not_understood(item, words):
    with pytest.raises(DataError, match=words):
        as_batch(item)


@pytest.mark.parametrize(
    "item",
    [(X, "cat"), (X, ["cat", "dog"]), ("text", Y), (X, object()), {"labels": ["cat"], "a": X},
     (np.array(["cat"]), Y), (X, np.array([None]))],
    ids=["str", "strs", "text", "object", "dict", "numpy_str", "numpy_object"],
)  # fmt: skip
def test_what_is_no_number_is_refused(item):
    with pytest.raises(DataError, match="stands where a tensor should"):
        as_batch(item)


def test_read_only_arrays():
    x = X.numpy().copy()
    x.flags.writeable = False
    assert torch.equal(read((x, Y))[0], X)


@few
@given(st.integers(0, N - 1), st.sampled_from(["input", "label", "order", "drop"]))
def test_fingerprint_sees_every_change(index, change):
    x, y = X.clone(), Y.clone()
    if change == "input":
        x[index, 1] += 1e-3
    elif change == "label":
        y[index] += 1
    elif change == "order":
        swap = torch.arange(N).roll(index + 1 if index < N - 1 else 1)
        x, y = x[swap], y[swap]
    else:
        keep = torch.arange(N) != index
        x, y = x[keep], y[keep]
    assert Stream((x, y)).fingerprint() != Stream((X, Y)).fingerprint()
    assert Stream((X.clone(), Y.clone())).fingerprint() == Stream((X, Y)).fingerprint()


def test_fingerprint_sees_types_and_labels():
    forms = [(X, Y), (X,), (X.double(), Y), (X, Y.int()), (X.reshape(N, 1, 3), Y)]
    assert len({Stream(form).fingerprint() for form in forms}) == len(forms)


CPU = torch.device("cpu")


def test_batches_go_to_double():
    inputs = {"a": X.half(), "ids": Y, "deep": [X, Pair(X, Y)], "wave": X + 1j, "mask": Y > 0}
    batch = as_batch((inputs, Y.float())).to(CPU)
    kinds = [t.dtype for t in batch.tensors()]
    double, whole = torch.float64, torch.int64
    assert kinds == [double, whole, double, double, whole, torch.complex128, torch.bool]
    assert isinstance(batch.kwargs["deep"][1], Pair)
    assert batch.targets.dtype == torch.float32
    assert torch.equal(batch.kwargs["deep"][0], X.double())


def test_batches_leave_the_graph_of_the_data():
    x = X.clone().requires_grad_()
    batch = as_batch((x * 2, x.sum(-1))).to(CPU)
    assert not batch.args[0].requires_grad
    assert not batch.targets.requires_grad
    assert x.requires_grad


def test_data_made_in_inference_mode_can_be_differentiated_through():
    with torch.inference_mode():
        x, ids = X.double() * 1, Y * 1
    batch = as_batch({"a": x, "ids": ids, "labels": ids}).to(CPU)
    assert not any(t.is_inference() for t in (*batch.tensors(), batch.targets))
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (batch.kwargs["a"] * w).sum().backward()
    assert torch.equal(w.grad, x.sum(0))


@pytest.mark.parametrize("index", [0, 3, N - 1])
def test_one_item_of_a_batch(index):
    scalar, table = torch.tensor(2.0), torch.eye(2)
    one = Batch((X, {"b": [Z, scalar]}), {"table": table}, Y).sample(index, N)
    x, nested = one.args
    assert torch.equal(x, X[index : index + 1])
    assert torch.equal(nested["b"][0], Z[index : index + 1])
    assert nested["b"][1] is scalar
    assert one.kwargs["table"] is table
    assert one.targets.tolist() == [int(Y[index])]
    assert Batch((X,), {}, None).sample(index, N).targets is None
