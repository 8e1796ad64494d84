"""Files of weights that were saved along a training run, in their order."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightlike.errors import RunFileError


def find_checkpoints(patterns: Any, folder: Path) -> list[tuple[int, Path]]:
    """Steps and files, in the order of the steps.

    The step is the last whole number in a file's name, such as 200 in "step-200.safetensors", if
    all names have one and no two the same; otherwise the place in the order given, from 0.

    Args:
        patterns: A path or a pattern with * or ?, or a list of them.
        folder: They are relative to it.

    Raises:
        RunFileError: if they name no files, or one twice.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, Sequence) or not all(isinstance(p, str) for p in listed):
        raise RunFileError(
            f"weights = {patterns!r} is no pattern and no list of files.",
            "It names the weights of the training run, step by step.",
            'Write weights = "step-*.safetensors", or a list of paths in quotes.',
        )
    files = [file for pattern in listed for file in _matching(pattern, folder)]
    if not files:
        raise RunFileError(
            "No files of weights were named.",
            "There is no training run to follow.",
            'Write weights = "step-*.safetensors" under [track], or give --weights.',
        )
    if len({file.resolve() for file in files}) < len(files):
        raise RunFileError(
            "A file of weights is named twice.",
            "It would stand for two steps.",
            "Let patterns and names not overlap.",
        )
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    steps = [int(found[-1]) for found in numbers if found]
    if len(set(steps)) < len(files):
        steps = list(range(len(files)))
    return sorted(zip(steps, files, strict=True))


def _matching(pattern: str, folder: Path) -> list[Path]:
    if not any(sign in pattern for sign in "*?["):
        return [folder / pattern]
    found = sorted(folder / name for name in glob.glob(pattern, root_dir=folder))
    if not found:
        raise RunFileError(
            f"No file matches {pattern!r} in {str(folder.resolve())!r}.",
            "There is no training run to follow.",
            "Check the pattern; it is relative to the run file, with --weights to this folder.",
        )
    return found
