"""Result files: tensors and a JSON header in one safetensors file, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from lightlike.errors import StoreError

# Schema that is written, and the oldest that is read.
SCHEMA, OLDEST = 1, 1
KEY = "lightlike"
DIGEST = "sha256"


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write a file atomically: a temporary file beside it, flushed to disk, then renamed.

    Raises:
        StoreError: if the file cannot be written; whatever stood there before still does.
    """
    target = Path(path)
    plain = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
    content = {"schema": SCHEMA, **header}
    text = json.dumps({**content, DIGEST: digest_of(plain, content)}, allow_nan=False)
    write_bytes(target, serialise(plain, {KEY: text}))


def check_place(path: str | os.PathLike[str]) -> None:
    """Make sure that a file can be written there before something long is computed for it.

    Raises:
        StoreError: if the folder is missing or closed, or the path is a folder itself.
    """
    target = Path(path)
    try:
        target = target.resolve()
        if not target.parent.is_dir():
            reason = f"the folder {str(target.parent)!r} does not exist"
        elif target.is_dir():
            reason = "it is a folder"
        elif target.exists() and not target.is_file():
            reason = "it is a device or another special file"
        else:
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
                return
    except OSError as error:
        reason = error.strerror or str(error)
    raise StoreError(
        f"The file {str(target)!r} cannot be written: {reason}.",
        "What was asked for would be computed and then lost.",
        "Make the folder, or name another.",
    )


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Make sure that a result can be written there and nothing but a result be lost by it.

    Raises:
        StoreError: as `check_place`, and if another file stands there.
    """
    check_place(path)
    target = Path(path)
    if not target.is_file() or not target.stat().st_size:
        return
    try:
        with safe_open(str(target), framework="pt") as file:
            ours = KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        ours = False
    if not ours:
        raise StoreError(
            f"{str(target)!r} exists and is not a result of lightlike.",
            "It would be lost.",
            "Name another file, or delete it first.",
        )


def write_bytes(target: Path, data: bytes) -> None:
    """Write bytes atomically.

    Raises:
        StoreError: if the file cannot be written; whatever stood there before still does.
    """
    target = target.resolve()  # through a link, which stays one
    check_place(target)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise StoreError(
            f"The file {str(target)!r} cannot be written ({error.strerror or error}).",
            "No part of it was kept; a file that stood there before is unchanged.",
            "Free some space, or name another folder.",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a result file; nothing in it is ever executed.

    Raises:
        StoreError: if it is missing, truncated, not a result file, or of another schema.
    """
    tensors, header = _open(path, whole=True)
    if header.pop(DIGEST, None) != digest_of(tensors, header):
        raise StoreError(
            f"{str(path)!r} is damaged: its checksum is not that of its contents.",
            "Some of its numbers are no longer those that were written.",
            "Copy it again from where it was written, or measure again.",
        )
    return tensors, header


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header alone, without a look at the numbers that it goes with.

    Raises:
        StoreError: as `read`, but for what only the numbers can tell.
    """
    return _open(path, whole=False)[1]


def _open(path: str | os.PathLike[str], *, whole: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if whole else ()
            tensors = {name: file.get_tensor(name) for name in names}
        header = json.loads(metadata.get(KEY, "null"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = "it is a folder" if Path(path).is_dir() else error
        raise StoreError(
            f"{str(path)!r} cannot be read as a result file ({reason}).",
            "It is missing, truncated or something else.",
            "Check the path, or measure again.",
        ) from error
    if KEY not in metadata:
        raise StoreError(
            f"{str(path)!r} is a safetensors file but not a result of lightlike.",
            "It has no header to say what its numbers mean.",
            "Name a file that was written by save() or with out=.",
        )
    if not isinstance(header, dict) or type(header.get("schema")) is not int:
        raise StoreError(
            f"The header of {str(path)!r} is damaged.",
            "Its numbers cannot be told apart.",
            "Measure again.",
        )
    if header["schema"] > SCHEMA:
        raise StoreError(
            f"{str(path)!r} was written by a later version (schema {header['schema']}, this "
            f"version knows up to {SCHEMA}).",
            "Fields may have changed their meaning.",
            "Upgrade lightlike.",
        )
    if header["schema"] < OLDEST:
        raise StoreError(
            f"{str(path)!r} was written by an earlier version (schema {header['schema']}, this "
            f"version knows {OLDEST} and later).",
            "Fields have changed their meaning.",
            "Measure again, or read it with the version that wrote it.",
        )
    return tensors, header


def digest_of(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 of a header's content and of tensors with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():  # the strides of an empty one may be anything
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
