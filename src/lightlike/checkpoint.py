"""States of a long computation, saved beside its result so that it can go on after an end.

A checkpoint is a folder beside the result with one file a state, each written whole or not at all
in the format of `lightlike.store`: tensors and JSON, never anything that is executed. It belongs to
one key, everything that the numbers depend on; states of another key are never read. Nothing is
written before the first `EVERY` seconds of work, so that short computations never pay.

A stage that is computed at once is `checkpoint.stage(name, compute)`. An iteration takes up
`checkpoint.get(name)` and calls `checkpoint.offer(name, state)` after each step, where `state`
gives its tensors and facts: it is called, and they are written, only when it is time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightlike import store
from lightlike.errors import StoreError

# Seconds of work that may be lost, and the share of the time that saving may take.
EVERY, SHARE = 20.0, 0.1
SUFFIX, KIND, LOCK = ".partial", "checkpoint", "lock"

Tensors = dict[str, Tensor]
Facts = dict[str, Any]
State = tuple[Tensors, Facts]


class Checkpoint:
    """The states of one computation.

    Args:
        path: Of the result; the states stand in a folder of that name and `.partial`.
        key: What the numbers depend on, by name, in types that JSON has.
        note: Takes what is to be said: where it goes on, or what cannot be used.
        alone: Whether states of another key must not be there, as they belong to a result that
            would be lost.

    Raises:
        StoreError: if another process is at work on the same result, or there are states of
            another key and must not be.

    Attributes:
        folder: Where the states are; it exists once one is written.
        resumed: Whether a state was found at the start.
        seconds: Work that went into the states found at the start.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: Mapping[str, Any],
        note: Callable[[str], None] = lambda _: None,
        *,
        alone: bool = False,
    ) -> None:
        self.root = Path(f"{os.fspath(path)}{SUFFIX}")
        self.key = json.loads(json.dumps(dict(key)))
        text = json.dumps(self.key, sort_keys=True)
        self.name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = self.root / self.name
        self.seconds = 0.0
        self._note, self._prefix = note, ""
        self._clock = time.monotonic
        self._held: dict[str, Callable[[], None]] = {}
        self._broken = False
        self._lock: int | None = None
        if self.root.is_dir():
            self._take_lock()
        self.resumed = self._look(alone=alone)
        self._started = self._last = self._clock()
        self._cost = 0.0

    def get(self, name: str) -> State | None:
        """What was saved under a name, or None; a damaged file counts as none."""
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            tensors, header = store.read(path)
        except StoreError:
            return None
        if header.get("kind") != KIND or header.get("key") != self.key:
            return None
        # In memory of its own, which begins where PyTorch's does: last bits depend on it.
        return {key: tensor.clone() for key, tensor in tensors.items()}, header["facts"]

    def put(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Save a finished state now or, if too little was worked since, with the next one.

        The tensors must not change afterwards.
        """
        self.hold(name, lambda: self.write(name, tensors, facts))

    def hold(self, name: str, write: Callable[[], None]) -> None:
        """As `put`, with a function that writes."""
        self._held[name] = write
        if self.due():
            self.flush()

    def write(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Save a state now.

        A disk that takes no more does not end the computation: it is said, and nothing is saved
        any more.
        """
        if self._broken:
            return
        begun = self._clock()
        worked = self.seconds + begun - self._started
        header = {"kind": KIND, "key": self.key, "facts": dict(facts), "seconds": worked}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            store.write(self._path(name), tensors, header)
        except (OSError, StoreError, TypeError, ValueError) as error:
            self._broken = True
            what = error.what if isinstance(error, StoreError) else str(error)
            self._note(f"Progress cannot be saved any more: {what}")
            return
        self._held.pop(name, None)
        self._last = self._clock()
        self._cost = self._last - begun

    def offer(self, name: str, state: Callable[[], State]) -> None:
        """Save the state of something that goes on, if it is time for it."""
        if self.due():
            self.flush()
            self.write(name, *state())

    def stage(self, name: str, compute: Callable[[], State]) -> State:
        """The state that was saved under a name, or the computed one, which is then saved."""
        found = self.get(name)
        if found is None:
            found = compute()
            self.put(name, *found)
        return found

    def under(self, tag: str) -> Part:
        """The same place with a tag behind every name."""
        return Part(self, tag)

    def drop(self, name: str) -> None:
        """Forget a state."""
        self._held.pop(name, None)
        with contextlib.suppress(OSError):
            self._path(name).unlink()

    def due(self) -> bool:
        """Whether enough was worked since the last state was saved."""
        return self._clock() - self._last >= max(EVERY, self._cost / SHARE)

    def charge(self, seconds: float) -> None:
        """Count the cost of a state of several files as one."""
        self._cost = seconds

    def flush(self) -> None:
        """Save what is held."""
        begun = self._clock()
        for write in list(self._held.values()):
            write()
        self._held.clear()
        self.charge(self._clock() - begun)

    def reset(self, why: str) -> None:
        """Forget all states of this key."""
        self._note(why)
        self._held.clear()
        for path in self.folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):
                path.unlink()
        self.resumed, self.seconds = False, 0.0

    def remove(self) -> None:
        """Delete all states, of other keys too: the result is there."""
        self._held.clear()
        self._broken = True
        if self.root.is_dir():
            with contextlib.suppress(OSError, StoreError):  # another process has it
                self._take_lock()
                shutil.rmtree(self.root, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let go of the folder, for another process to go on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _look(self, *, alone: bool) -> bool:
        """Whether there is a state of this key; says which others there are, or refuses them."""
        mine, others = False, set[str]()
        for path in sorted(self.root.glob("*/*.safetensors")) if self.root.is_dir() else ():
            header = _header(path)
            if header is None:
                continue
            if path.parent == self.folder and header.get("key") == self.key:
                mine = True
                self.seconds = max(self.seconds, float(header.get("seconds", 0.0)))
            else:
                key = header.get("key")
                key = key if isinstance(key, dict) else {}
                names = self.key.keys() | key.keys()
                others |= {name for name in names if self.key.get(name) != key.get(name)}
        if others and alone:
            self.close()
            raise StoreError(
                f"{str(self.root)!r} holds what was done of another run; it differs from this one "
                f"in: {', '.join(sorted(others))}.",
                "To go on would mix the two; to start over would lose it.",
                "Restore what differs, name another file, or start over by force (--force).",
            )
        if others:
            self._note(
                f"What {str(self.root)!r} holds of another run is not used; "
                f"it differs in: {', '.join(sorted(others))}."
            )
        if mine:
            self._note(
                f"Continuing from {str(self.root)!r}, {self.seconds:.0f} s of work are done."
            )
        return mine

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        try:
            import fcntl
        except ImportError:  # no such locks on Windows
            return
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"Another process is at work on the result of {str(self.root)!r}.",
                "Two of them would write over each other's states.",
                "Wait for it, or name another file with out=....",
            ) from error
        self._lock = descriptor


@dataclass(frozen=True)
class Part:
    """A checkpoint that adds a tag to every name.

    Attributes:
        checkpoint: Where the states are.
        tag: What tells this part's states from others of the same name.
    """

    checkpoint: Checkpoint
    tag: str

    def stage(self, name: str, compute: Callable[[], State]) -> State:
        """As `Checkpoint.stage`."""
        return self.checkpoint.stage(name + self.tag, compute)

    def under(self, tag: str) -> Part:
        """The same place with one more tag."""
        return Part(self.checkpoint, self.tag + tag)


def _header(path: Path) -> dict[str, Any] | None:
    """The header of a state, None if it is none."""
    try:
        header = store.read_header(path)
    except StoreError:
        return None
    return header if header.get("kind") == KIND else None
