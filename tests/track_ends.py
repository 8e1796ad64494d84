"""Runs of `lightlike track` that are killed in children of one process, for `test_track_again`.

Takes a folder with a run file and `plan.json`, a list of [history, write, moment]: the child is
killed before or after its write-th atomic write, or at the write-th line of the history.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch

from lightlike import store
from lightlike.assess import tracking
from lightlike.runfile import read_run
from lightlike.runfile.following import follow


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def end_at(count, moment):
    """Kill this process at a moment."""
    real, line, seen = store.os.replace, tracking._line, [0, 0]

    def replace(source, target):
        seen[0] += 1
        if seen[0] == count and moment == "before":
            kill()
        real(source, target)
        if seen[0] == count and moment == "after":
            kill()

    def torn(snapshot):
        seen[1] += 1
        if seen[1] == count and moment == "torn":
            with (Path(sys.argv[1]) / name).open("a") as file:
                file.write(line(snapshot)[:-30])
                file.flush()
                kill()
        return line(snapshot)

    store.os.replace, tracking._line = replace, torn


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, codes = Path(sys.argv[1]), []
    for name, count, moment in json.loads((folder / "plan.json").read_text()):
        process = os.fork()
        if not process:
            warnings.simplefilter("error")
            code = 1
            try:
                if count:
                    end_at(count, moment)
                follow(read_run(folder / "run.toml"), out=folder / name, quiet=True)
                code = 0
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    (folder / "codes.json").write_text(json.dumps(codes))
