"""Measurements that are ended in children of one process, for `test_resume`.

Takes a folder, runs what `plan.json` there lists and writes `ends.json`. A child is ended by a kill
before, during or after the write of its n-th state, by a signal after some seconds, or not at all.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from torch import nn

import lightlike as ll
from lightlike import checkpoint, store
from lightlike.metric import gram


def net(kind, width=6, classes=4):
    torch.manual_seed(0)
    if kind == "convolution":
        body = [nn.Unflatten(1, (1, 3, 2)), nn.Conv2d(1, 4, 2), nn.LeakyReLU(0.1), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(8, classes))
    return nn.Sequential(
        nn.Linear(6, width), nn.LeakyReLU(0.1), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, classes),
    )  # fmt: skip


def data(items=40):
    g = torch.Generator().manual_seed(1)
    return torch.randn(items, 6, generator=g), torch.randint(4, (items,), generator=g)


def measure(run, out):
    """The measurement of a run, in pieces small enough for there to be many."""
    gram.TILE_ROWS, gram.STRIP, gram.NARROW = 16, 1 << 12, 4
    checkpoint.EVERY, checkpoint.SHARE = run.get("every", 0.0), 1e9
    options = dict(run.get("options", {}))
    if variance := options.pop("variance", None):
        options["prior"] = ll.priors.Isotropic(variance)
    for name in ("Quadrature", "Lanczos"):
        if (given := options.pop(name, None)) is not None:
            options["method"] = getattr(ll, name)(**given)
    model = net(run.get("net", "linear"))
    if options.pop("unequal", False):
        scale = {n: 0.5 + i for i, (n, _) in enumerate(model.named_parameters())}
        options["prior"] = ll.priors.PerParameter(scale)
    if run.get("changed") == "code":
        model[1] = nn.ReLU()
    if run.get("changed") == "weights":
        model[0].weight.data += 0.1
    x, y = data()
    if run.get("changed") == "data":
        x = x + 0.1
    if passes := run.get("passes"):
        from lightlike.metric import footprint

        footprint.PASS = passes
    labels = (x, 3 * x[:, :4] - y[:, None]) if run.get("likelihood") == "gaussian" else (x, y)
    ll.measure(model, labels, run.get("likelihood", "categorical"), out=out, **options)


def end_at(count, moment):
    """Kill this process at a moment of its count-th write."""
    real, seen = store.os.replace, [0]

    def replace(source, target):
        seen[0] += 1
        mine = seen[0] == count
        if mine and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
        if mine and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if mine and moment == "interrupt":
            raise KeyboardInterrupt
        if mine and moment == "terminate":
            raise SystemExit(143)

    store.os.replace = replace


def child(folder, run):
    with open(folder / f"{run['name']}.err", "a") as errors:
        sys.stderr = errors
        if "write" in run:
            end_at(run["write"], run["moment"])
        if "seconds" in run:
            timer = threading.Timer(run["seconds"], os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        code = 0
        try:
            measure(run, folder / run["out"])
        except KeyboardInterrupt:
            code = 130
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            errors.write(f"{type(error).__name__}: {error}\n")
            code = 1
        errors.flush()
    os._exit(code)


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ends = []
    for run in json.loads((folder / "plan.json").read_text()):
        begun = time.monotonic()
        process = os.fork()
        if not process:
            with contextlib.suppress(BaseException):
                child(folder, run)
            os._exit(9)
        status = os.waitpid(process, 0)[1]
        ends.append({"code": os.waitstatus_to_exitcode(status), "s": time.monotonic() - begun})
    (folder / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
