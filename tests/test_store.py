import errno
import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import lightlike as ll
from lightlike import store
from lightlike.errors import LightlikeError, StoreError

TENSORS = {
    "eigenvalues": torch.arange(5, dtype=torch.float64).flip(0),
    "empty": torch.zeros(0, dtype=torch.float64),
    "one": torch.tensor(0.1, dtype=torch.float64),
    "table": torch.arange(6).reshape(2, 3),
}
HEADER = {"kind": "test", "text": "λ é 漢 \u0000", "list": [1, 2.5, None], "nested": {"a": True}}


def same(found):
    tensors, header = found
    return header == {"schema": store.SCHEMA, **HEADER} and all(
        torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items()
    )


def bare(path, **changes):
    """A file with a chosen header and no more."""
    header = {"schema": store.SCHEMA, **HEADER, **changes}
    tensors = dict(TENSORS)
    text = json.dumps({**header, store.DIGEST: store.digest_of(tensors, header)})
    save_file(tensors, path, {store.KEY: text})
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "result.ll"
    store.write(path, TENSORS, HEADER)
    return path.read_bytes()


def test_round_trip(tmp_path):
    for path in (tmp_path / "result.ll", str(tmp_path / "ünï 漢.ll")):
        store.write(path, TENSORS, HEADER)
        assert same(store.read(path))
    view = {"view": torch.arange(8.0).reshape(2, 4).T.requires_grad_()}
    store.write(tmp_path / "view.ll", view, {})
    assert torch.equal(store.read(tmp_path / "view.ll")[0]["view"], view["view"])


def test_the_same_content_is_the_same_file(tmp_path, written):
    for _ in range(10):
        store.write(tmp_path / "again.ll", TENSORS, HEADER)
        assert (tmp_path / "again.ll").read_bytes() == written


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_any_new_file(tmp_path):
    store.write(tmp_path / "result.ll", TENSORS, HEADER)
    (tmp_path / "plain").touch()
    assert (tmp_path / "result.ll").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_header_must_be_json(tmp_path, bad):
    with pytest.raises(ValueError, match="JSON"):
        store.write(tmp_path / "result.ll", TENSORS, {"number": bad})
    assert not list(tmp_path.iterdir())


def fail(error):
    def function(*_, **__):
        raise error

    return function


@pytest.mark.parametrize("before", [None, b"what stood there before"])
@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("os.fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("os.fsync", OSError(errno.EIO, os.strerror(errno.EIO))),
        ("os.chmod", PermissionError(errno.EPERM, "no")),
        ("os.replace", OSError(errno.EXDEV, "elsewhere")),
        ("tempfile.mkstemp", OSError(errno.EDQUOT, "quota")),
    ],
)
def test_failure_keeps_what_stood_there(tmp_path, monkeypatch, where, error, before):
    path = tmp_path / "result.ll"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(f"lightlike.store.{where}", fail(error))
    with pytest.raises(StoreError, match="cannot be written") as caught:
        store.write(path, TENSORS, HEADER)
    assert error.strerror in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ([] if before is None else ["result.ll"])
    assert before is None or path.read_bytes() == before


def test_a_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    path = tmp_path / "result.ll"
    path.write_bytes(b"old")
    real = os.fdopen

    def small(descriptor, mode):
        file = real(descriptor, mode, buffering=0)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Full()

    monkeypatch.setattr("lightlike.store.os.fdopen", small)
    with pytest.raises(StoreError, match="No space left"):
        store.write(path, TENSORS, HEADER)
    assert [p.name for p in tmp_path.iterdir()] == ["result.ll"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch, error):
    path = tmp_path / "result.ll"
    path.write_bytes(b"old")
    monkeypatch.setattr("lightlike.store.os.fsync", fail(error))
    with pytest.raises(type(error)):
        store.write(path, TENSORS, HEADER)
    assert [p.name for p in tmp_path.iterdir()] == ["result.ll"]
    assert path.read_bytes() == b"old"


def _write_and_hang(path, ready):
    def hang(_):
        Path(ready).touch()
        time.sleep(60)

    store.os.fsync = hang
    store.write(path, TENSORS, HEADER)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing(tmp_path):
    path, ready = tmp_path / "result.ll", tmp_path / "ready"
    store.write(path, TENSORS, HEADER)
    process = multiprocessing.get_context("spawn").Process(
        target=_write_and_hang, args=(path, ready)
    )
    process.start()
    end = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert ready.exists()
    process.kill()
    process.join()
    process.close()
    assert same(store.read(path))
    store.write(path, TENSORS, HEADER)
    assert same(store.read(path))


def test_truncated_anywhere(tmp_path, written):
    path = tmp_path / "short.ll"
    for size in range(len(written)):
        path.write_bytes(written[:size])
        with pytest.raises(StoreError):
            store.read(path)


def test_any_bit_flipped(tmp_path, written):
    path = tmp_path / "flipped.ll"
    for place in range(len(written)):
        damaged = bytearray(written)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            found = store.read(path)
        except StoreError:
            continue
        assert same(found), place


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=20))
@example([(0, 255), (7, 255)])
@example([(7, 127)])
def test_random_damage(tmp_path_factory, written, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.ll"
    damaged = bytearray(written)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged)
    try:
        found = store.read(path)
    except StoreError:
        return
    assert same(found)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.ll"
    path.write_bytes(content)
    with pytest.raises(StoreError):
        store.read(path)


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["LIGHTLIKE_TRAP"],)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, kind):
    trap, path = tmp_path / "sprung", tmp_path / "result.ll"
    monkeypatch.setenv("LIGHTLIKE_TRAP", str(trap))
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap()))
    else:
        torch.save({"x": Trap()}, path)
    for read in (store.read, ll.load):
        with pytest.raises(StoreError, match="cannot be read as a result file"):
            read(path)
    assert not trap.exists()


def test_foreign_safetensors(tmp_path):
    for name, metadata in (("none", None), ("other", {"format": "pt"})):
        save_file(dict(TENSORS), tmp_path / name, metadata)
        with pytest.raises(StoreError, match="not a result of lightlike"):
            store.read(tmp_path / name)


def test_later_schema(tmp_path):
    path = bare(tmp_path / "later.ll", schema=store.SCHEMA + 1)
    with pytest.raises(StoreError, match=r"later version \(schema 2.*Upgrade"):
        store.read(path)


@pytest.mark.parametrize("schema", [0, -3])
def test_earlier_schema(tmp_path, schema):
    path = bare(tmp_path / "earlier.ll", schema=schema)
    for read in (store.read, store.read_header, ll.load):
        with pytest.raises(StoreError, match=r"earlier version \(schema .*Measure again"):
            read(path)


@pytest.mark.parametrize("schema", [None, "1", 1.5, [], True])
def test_header_without_a_schema(tmp_path, schema):
    with pytest.raises(StoreError, match=r"header .* is damaged"):
        store.read(bare(tmp_path / "x.ll", schema=schema))


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", '"text"', "{", "nul", "[" * 100_000])
def test_header_that_is_no_object(tmp_path, text):
    save_file(dict(TENSORS), tmp_path / "x.ll", {store.KEY: text})
    with pytest.raises(StoreError):
        store.read(tmp_path / "x.ll")


def test_valid_file_of_another_kind_is_no_measurement(tmp_path):
    store.write(tmp_path / "x.ll", TENSORS, HEADER)
    with pytest.raises(StoreError, match="holds a 'test', not a measurement"):
        ll.load(tmp_path / "x.ll")


@pytest.mark.parametrize("field", [{}, {"spectrum": 3}, {"spectrum": {}}, {"length": []}])
def test_measurement_with_fields_missing(tmp_path, field):
    store.write(tmp_path / "x.ll", TENSORS, {"kind": "measurement", **field})
    with pytest.raises(StoreError, match=r"header .* is damaged"):
        ll.load(tmp_path / "x.ll")


@pytest.mark.parametrize("place", ["missing/result.ll", "file/result.ll", "folder", "a" * 300])
def test_places_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="cannot be written"):
        store.write(tmp_path / place, TENSORS, HEADER)
    assert sorted(tmp_path.rglob("*")) == before
    if place != "a" * 300:
        with pytest.raises(StoreError, match="cannot be written"):
            store.check_place(tmp_path / place)


@pytest.mark.parametrize("place", ["missing", "folder"])
def test_places_that_cannot_be_read(tmp_path, place):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be read") as caught:
        store.read(tmp_path / place)
    assert isinstance(caught.value, LightlikeError)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
def test_closed_folder_and_file(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    path = folder / "result.ll"
    store.write(path, TENSORS, HEADER)
    path.chmod(0)
    with pytest.raises(StoreError, match="cannot be read"):
        store.read(path)
    folder.chmod(0o500)
    try:
        for attempt in (store.check_place, lambda p: store.write(p, TENSORS, HEADER)):
            with pytest.raises(StoreError, match="cannot be written"):
                attempt(path)
    finally:
        folder.chmod(0o700)


def test_a_link_stays_a_link_and_special_files_stay(tmp_path):
    target, link = tmp_path / "target.ll", tmp_path / "link.ll"
    store.write(target, TENSORS, HEADER)
    link.symlink_to(target)
    store.write(link, {}, {"kind": "other"})
    assert link.is_symlink()
    assert store.read(target)[1]["kind"] == "other"
    os.mkfifo(tmp_path / "pipe")
    for refuse in (store.check_place, lambda place: store.write(place, TENSORS, HEADER)):
        with pytest.raises(StoreError, match="special file"):
            refuse(tmp_path / "pipe")
    assert not (tmp_path / "pipe").is_file()
