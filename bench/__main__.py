"""`make bench`: what a frame costs with everything recorded, beside the bare echo on the same Daphne, in one run.
Ratios travel between machines; the absolute figures belong to the machine they were measured on."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

from bench import load
from bench.conversation import frames
from bench.servers import LOAD_CORE, Server, serve

OURS, ECHO = "project.asgi:application", "bench.echo:application"
SMALL, LONG = 48, 52
GOALS = {"small": 2.2, "long": 1.8}


def main() -> None:
    """Prints every table."""
    options = _options()
    os.sched_setaffinity(0, {LOAD_CORE})
    print(f"load on core {LOAD_CORE}, server on core {1 - LOAD_CORE}; {options.rounds} rounds, medians\n")
    cost_of_a_frame(options.rounds)
    cost_of_a_long_call()
    if options.calls:
        many_calls(options.calls, options.seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each server and size")
    parser.add_argument("--calls", type=int, default=1000, help="calls at once in the paced run, 0 for none")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the paced run")
    return parser.parse_args()


def cost_of_a_frame(rounds: int) -> None:
    """µs of the server's processor time per frame, the servers in turn, so that drift hits all."""
    scripts = {"small": load.script(SMALL, timed=False), "long": load.script(LONG, timed=True)}
    with serve(ECHO, "daphne") as stock, serve(ECHO) as tuned, serve(OURS) as ours:
        print(
            "| frames | mean size | echo on stock Daphne, µs | echo on project.serve, µs "
            "| ours, everything recorded, µs | ours to stock echo | goal | ours to tuned echo |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for size, (script, kilobytes) in scripts.items():
            servers = (stock, tuned, ours)
            for server in servers:
                _cpu_per_frame(server, script)
            found = [[_cpu_per_frame(server, script) for server in servers] for _ in range(rounds)]
            floor, tuned_floor, cost = (statistics.median(column) for column in zip(*found, strict=True))
            ratio = statistics.median(row[2] / row[0] for row in found)
            other = statistics.median(row[2] / row[1] for row in found)
            print(
                f"| {size} | {kilobytes:.1f} kB | {floor:.0f} | {tuned_floor:.0f} | {cost:.0f} "
                f"| {ratio:.2f} | {GOALS[size]} | {other:.2f} |"
            )
    print()


def _cpu_per_frame(server: Server, script: list[str], calls: int = 8) -> float:
    before = server.cpu_s()
    sent = asyncio.run(load.flat_out(server.url, calls, script, 1))
    time.sleep(1.0)  # the recorder's last batch belongs to these frames
    return (server.cpu_s() - before) / sent * 1e6


def cost_of_a_long_call() -> None:
    """The frames of the 60th minute: each holds the whole call."""
    script = frames(680, timed=True)
    last = [frame for frame in script if len(frame) > 0.95 * len(script[-1])][-60:]
    size = sum(map(len, last)) / len(last) / 1e6
    with serve(OURS) as server:
        _cpu_per_frame(server, last, calls=1)
        cost = statistics.median(_cpu_per_frame(server, last, calls=1) for _ in range(3))
    print(f"An hour's call: frames of {size:.2f} MB cost {cost / 1000:.1f} ms each (goal: under 5 ms)\n")


def many_calls(calls: int, seconds: float) -> None:
    """Calls at once, paced like real ones, on one process and one core."""
    script, kilobytes = load.script(max(8, int(seconds / 4)), timed=True)
    with serve(OURS, LLM_MAX_CALLS=str(calls * 2)) as server:
        idle = server.memory_kb()
        before, began = server.cpu_s(), time.monotonic()
        found = asyncio.run(load.paced(server.url, calls, seconds, script))
        took, used = time.monotonic() - began, server.cpu_s() - before
        grown = (server.memory_kb() - idle) / calls
    replies, pings = sorted(found.replies), sorted(found.pings)
    print(f"{calls} calls at once for {seconds:.0f} s, {found.frames / took:.0f} frames/s of {kilobytes:.1f} kB:")
    print(
        f"  request to first frame: p50 {_at(replies, 0.5):.1f} ms, p99 {_at(replies, 0.99):.1f} ms (goal: 50), "
        f"worst {replies[-1]:.0f} ms of {len(replies)}"
    )
    print(f"  ping to pong: p50 {_at(pings, 0.5):.1f} ms, worst {pings[-1]:.0f} ms of {len(pings)} (goal: 1000)")
    print(f"  server: {used / took * 100:.0f} % of one core, {grown:.0f} kB of memory per call (goal: 100)")


def _at(values: list[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)]


if __name__ == "__main__":
    main()
