"""How many cases fuzz.py tries of each kind, and what it says of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

# A case takes three times the processor time of others and more.
DEAR = {
    *("experiment run, drawn", "search, drawn", "brain experiment, drawn", "brain run, drawn", "network file, drawn"),
    *("report, drawn", "pictures", "RDM file", "patterns", "BOLD", "betas", "surfaces", "RDM data set"),
    *("brain experiment", "layout nsd", "layout things", "layout bold5000", "layout algonauts", "layout glmsingle"),
}


def with_dear(kinds: list[str], shares: dict[str, float], dear: float) -> dict[str, float]:
    """Shares in which the dear kinds come `dear` times as often."""
    return {kind: shares.get(kind, 1.0) * (dear if kind in DEAR else 1.0) for kind in kinds}


def counts(n: int, kinds: list[str], shares: dict[str, float]) -> dict[str, int]:
    """How many cases of each kind, n in all, in proportion to their shares and at least one of each."""
    weights = np.array([shares.get(kind, 1.0) for kind in kinds])
    ideal = weights * n / weights.sum()
    whole = np.maximum(1, ideal.astype(int))
    order = np.argsort(whole - ideal, kind="stable")
    for k in order[: max(0, n - whole.sum())]:
        whole[k] += 1
    return dict(zip(kinds, whole.tolist(), strict=True))


def summary(results: Sequence[Any], seconds: float) -> dict[str, Any]:
    """What was tried and how it ended, kind by kind; failures in full. results: `Result`s of fuzz.py."""
    kinds: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(result.kind for result in results):
        some = [result for result in results if result.kind == kind]
        outcomes = Counter(result.outcome for result in some)
        kinds[kind] = {
            "cases": len(some),
            **{outcome: outcomes[outcome] for outcome in ("valid", "refused", "FAILED")},
            "slowest_s": round(max(result.seconds for result in some), 2),
            "mean_s": round(float(np.mean([result.seconds for result in some])), 3),
            "largest_mib": max(result.memory for result in some) >> 20,
        }
    outcomes = Counter(result.outcome for result in results)
    return {
        "cases": len(results),
        **{outcome: outcomes[outcome] for outcome in ("valid", "refused", "FAILED")},
        "seconds": round(seconds, 1),
        "slowest_s": round(max(result.seconds for result in results), 2),
        "largest_mib": max(result.memory for result in results) >> 20,
        "different_messages": len({re.sub(r"[\d.e+-]+", "0", result.message) for result in results}),
        "kinds": kinds,
        "failures": [result._asdict() for result in results if result.outcome == "FAILED"],
    }


def tell(told: dict[str, Any]) -> None:
    """Print a summary."""
    names = ("cases", "valid", "refused", "FAILED", "slowest_s", "mean_s", "largest_mib")
    rows = [("kind", *names), *((kind, *(str(of[name]) for name in names)) for kind, of in told["kinds"].items())]
    width = max(len(row[0]) for row in rows)
    for row in rows:
        print(row[0].ljust(width), *(word.rjust(11) for word in row[1:]))
    print(
        f"{told['cases']} cases: {told['valid']} valid, {told['refused']} refused, {told['FAILED']} failed; "
        f"slowest {told['slowest_s']} s, largest {told['largest_mib']} MiB, {told['seconds']} s in all"
    )
