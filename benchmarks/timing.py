"""Fair timing of several callables in one process, and the peak memory of one in a child."""

from __future__ import annotations

import gc
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WARM = 1 << 30  # bytes of memory touched ahead of each run
LONG = 20.0  # seconds; work that takes longer is worth neither a warm-up nor repeats


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: A short name.
        run: The work; its result is dropped.
        rounds: Take part in at most this many rounds, and without a warm-up; None: in all of them,
            unless the warm-up takes so long that it has to do as the only round.
    """

    name: str
    run: Callable[[], object]
    rounds: int | None = None


def round_robin(
    contenders: Sequence[Contender], repeats: int, report: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds of every contender in every round.

    Rounds are interleaved because a shared machine's speed drifts: a ratio within a round sees
    the drift on both sides. Each round has its own order, so that none always runs on the caches
    that the same other one has left.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        if contender.rounds is None:
            report(f"warm-up: {contender.name}")
            taken = _seconds(contender)
            if taken > LONG:
                seconds[contender.name].append(taken)
    done = {name for name, found in seconds.items() if found}
    for index in range(repeats):
        for contender in order.sample(list(contenders), len(contenders)):
            over = contender.rounds is not None and index >= contender.rounds
            if over or contender.name in done:
                continue
            report(f"round {index + 1} of {repeats}: {contender.name}")
            seconds[contender.name].append(_seconds(contender))
    return seconds


def _seconds(contender: Contender) -> float:
    gc.collect()
    # A virtual machine may have handed freed memory back to its host, and getting it again costs
    # up to a second a gigabyte: whoever ran after a long pause would pay that for all others.
    np.empty(WARM // 8).fill(0.0)
    start = time.perf_counter()
    result = contender.run()
    taken = time.perf_counter() - start
    del result
    return taken


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Seconds over the reference's, round by round, for the rounds that both took part in."""
    return [a / b for a, b in zip(seconds, reference, strict=False)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def peak_memory(prepare: Callable[[bool], Callable[[], object]]) -> int | None:
    """Bytes of resident memory at the peak of some work, beyond what was there before it.

    The work runs in a fresh process, after a small instance of it that loads the libraries and
    starts the thread pools. The peak is the kernel's own high-water mark VmHWM, so that no
    short-lived buffer escapes, as it would between two samples of a polling thread. It is not
    getrusage's ru_maxrss: that one survives exec, and the child would start with its parent's.

    Args:
        prepare: A function at module level (it is pickled). `prepare(small)` returns the work,
            which returns its result, so that this is alive at the end.

    Returns:
        The number, or None where there is no such mark to read.
    """
    if not CLEAR.exists():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(prepare, sender))
    child.start()
    sender.close()
    try:
        peak: int = receiver.recv()
    finally:
        child.join()
    return peak


def _measure(prepare: Callable[[bool], Callable[[], object]], sender: Connection) -> None:
    prepare(True)()
    work = prepare(False)
    gc.collect()
    before = lower_mark()
    result = work()
    sender.send(high_water() - before)
    del result


def lower_mark() -> int:
    """Lower this process's high-water mark to its present resident memory; that, in bytes.

    Otherwise what went before, importing libraries at least, may hide the peak of what follows.
    """
    CLEAR.write_text("5")
    return _status("VmRSS")


def high_water() -> int:
    """Peak resident memory of this process since the mark was lowered, in bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    """A field of this process's status in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} has no {field}")
