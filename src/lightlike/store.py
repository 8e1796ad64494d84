"""Result files: tensors and a JSON header in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from lightlike.errors import StoreError

SCHEMA = 1
KEY = "lightlike"


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write a file atomically: a temporary file beside it, flushed to disk, then renamed.

    Raises:
        StoreError: if the file cannot be written; whatever stood there before still does.
    """
    target = Path(path)
    text = json.dumps({"schema": SCHEMA, **header}, allow_nan=False)
    data = serialise({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, {KEY: text})
    write_bytes(target, data)


def write_bytes(target: Path, data: bytes) -> None:
    """Write bytes atomically.

    Raises:
        StoreError: if the file cannot be written; whatever stood there before still does.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise StoreError(
            f"The file {str(target)!r} cannot be written ({error.strerror or error}).",
            "No part of it was kept; a file that stood there before is unchanged.",
            "Free some space, or name another folder.",
        ) from error


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a result file; nothing in it is ever executed.

    Raises:
        StoreError: if it is missing, truncated, not a result file, or of a later schema.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise StoreError(
                    f"{str(path)!r} is a safetensors file but not a result of lightlike.",
                    "It has no header to say what its numbers mean.",
                    "Name a file that was written by save() or with out=.",
                )
            header = json.loads(metadata[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"{str(path)!r} cannot be read as a result file ({error}).",
            "It is missing, truncated or something else.",
            "Check the path, or measure again.",
        ) from error
    if not isinstance(header, dict) or not isinstance(header.get("schema"), int):
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
    return tensors, header


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
