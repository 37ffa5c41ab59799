"""``python -m benchmarks [NAME…] [--full]``: a table on the screen, JSON lines in bench-results/.

Each row is printed and kept as soon as it is there: what is interrupted is not lost.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from . import (
    attack,
    closed_path,
    cold_starts,
    distant_redis,
    false_trips,
    garbage,
    half_open,
    imports,
    interleavings,
    late_reports,
    many_models,
    operator_crashes,
    operator_pauses,
    operator_states,
    outage_cost,
    propagation,
    redis_away,
    replicas,
    reports,
    soak,
    start_up,
    status,
    waits,
)
from .forms import PeersMissing
from .measuring import FULL, QUICK, WIDTH, Effort, Row, line

BENCHMARKS: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "closed_path": closed_path.run,
    "reports": reports.run,
    "many_models": many_models.run,
    "propagation": propagation.run,
    "half_open": half_open.run,
    "redis_away": redis_away.run,
    "distant_redis": distant_redis.run,
    "imports": imports.run,
    "false_trips": false_trips.run,
    "interleavings": interleavings.run,
    "waits": waits.run,
    "outage_cost": outage_cost.run,
    "cold_starts": cold_starts.run,
    "late_reports": late_reports.run,
    "garbage": garbage.run,
    "status": status.run,
    "replicas": replicas.run,
    "start_up": start_up.run,
    "soak": soak.run,
    "attack": attack.run,
    "operator_pauses": operator_pauses.run,
    "operator_crashes": operator_crashes.run,
    "operator_states": operator_states.run,
}
RESULTS = Path("bench-results")


def main() -> None:
    arguments = _arguments()
    logging.disable(logging.ERROR)
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / time.strftime("%Y%m%d-%H%M%S.jsonl", time.gmtime())
    effort = FULL if arguments.full else QUICK
    if arguments.stories:
        effort = replace(effort, stories=arguments.stories)
    print("columns: name, ours, peer, ours / peer, unit")
    for name in arguments.names or BENCHMARKS:
        print(f"\n{name}  (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)", flush=True)
        began_at = time.monotonic()
        for row in BENCHMARKS[name](effort):
            print(line(row), flush=True)
            with kept.open("a") as file:
                file.write(json.dumps(row.fields()) + "\n")
        print(f"{'':<{WIDTH}}  took {time.monotonic() - began_at:.0f} s", flush=True)
    print(f"\nkept in {kept}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, beside other libraries.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which of them (default: all): {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--full", action="store_true", help="longer and steadier")
    parser.add_argument("--stories", type=int, help="how many operator_states plays; a few hundred take hours")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"there is no benchmark {min(unknown)!r}; there are {', '.join(BENCHMARKS)}")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except PeersMissing as error:
        sys.exit(str(error))
