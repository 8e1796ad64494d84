"""Certificates of the dimension on random networks of known rank: none may be wrong.

    python benchmarks/certificates.py [cases]

Networks come from ten families whose rank is known in closed form (tests/oracles/nullities.py).
For each, the rank by singular values, the bound by named null directions, and whether both meet are
written to results/certificates.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch

import lightlike as ll

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from oracles.nullities import case  # noqa: E402


def certify(index: int) -> dict[str, object]:
    known = case(index)
    F = ll.fisher(known.model, (known.x,), known.head)
    start = time.process_time()
    e = ll.explain(F)
    seconds = time.process_time() - start
    d = ll.dimension(F, explanation=e)
    rank = known.parameters - known.nullity
    return {
        "case": index, "family": known.family, "parameters": known.parameters, "rank": rank,
        "value": d.value, "lower": d.lower, "upper": d.upper, "kind": d.kind, "bound": d.bound,
        "proven_twice": d.proven_twice, "named": e.certain, "explained": e.explained,
        "unexplained": e.unexplained, "seconds": round(seconds, 4),
        "wrong": bool(
            d.upper < rank or d.lower > rank or e.certain > known.nullity
            or (d.proven_twice and d.value != rank)
        ),
    }  # fmt: skip


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    torch.set_num_threads(1)
    rows = [certify(index) for index in range(cases)]
    families: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        mine = families[str(row["family"]).split(",")[0]]
        mine["cases"] += 1
        mine["proven twice"] += bool(row["proven_twice"])
        mine["explained in full"] += row["unexplained"] == 0
        mine["wrong"] += bool(row["wrong"])
    total = {key: sum(f[key] for f in families.values()) for key in next(iter(families.values()))}
    record = {
        "versions": {"torch": torch.__version__},
        "total": total,
        "families": families,
        "wrong": [row for row in rows if row["wrong"]],
        "seconds of explain, mean": sum(float(str(r["seconds"])) for r in rows) / cases,
        "cases": [
            [r[k] for k in ("case", "family", "parameters", "rank", "lower", "upper", "named")]
            for r in rows
        ],
    }
    target = HERE / "results" / "certificates.json"
    text = json.dumps(record, indent=1)
    # One case a line.
    head, cases_text = text.split('"cases": [\n  [', 1)
    lines = cases_text.replace("\n   ", " ").replace("\n  ]", " ]")
    target.write_text(head + '"cases": [\n  [' + lines + "\n")
    for name, counts in [*families.items(), ("all", total)]:
        print(f"{name:18}" + "".join(f"{key}: {n:5}   " for key, n in counts.items()))


if __name__ == "__main__":
    main()
