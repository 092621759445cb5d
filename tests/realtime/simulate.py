"""`make simulate`: ten million seeded schedules of log, cursor and tabs, over all cores. FROM and COUNT choose others.

A schedule is its seed: what fails prints it, and `--from SEED --count 1` runs it again, alone. What was stopped goes on
with the `--from` that the last line of progress names.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

CHUNK = 2_000  # schedules that a process is given at once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--count", type=int, default=10_000_000, help="how many seeds")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    end = options.first + options.count
    chunks = iter([(first, min(first + CHUNK, end)) for first in range(options.first, end, CHUNK)])
    started = told = time.monotonic()
    bit: Counter[str] = Counter()
    done = 0
    with ProcessPoolExecutor(options.processes) as pool:
        open_chunks = dict(_submitted(pool, chunks, 2 * options.processes))
        while open_chunks:
            finished, _ = wait(open_chunks, return_when=FIRST_COMPLETED)
            for future in finished:
                first, last = open_chunks.pop(future)
                failure, counted = future.result()
                if failure is not None:
                    print(failure, file=sys.stderr)
                    pool.shutdown(cancel_futures=True)
                    return 1
                bit += counted
                done += last - first
                open_chunks |= dict(_submitted(pool, chunks, 1))
            now = time.monotonic()
            if now - told >= 5 or not open_chunks:
                told = now
                resume = min((first for first, _ in open_chunks.values()), default=end)
                rate = done / (now - started)
                print(f"{done:,} of {options.count:,} schedules, {rate:,.0f}/s; go on with --from {resume}", flush=True)
    print("all promises kept; faults that had an effect:")
    print("\n".join(f"  {number:>12,}  {fault}" for fault, number in bit.most_common()))
    return 0


def _submitted(
    pool: ProcessPoolExecutor, chunks: Iterator[tuple[int, int]], most: int
) -> Iterator[tuple[Future[tuple[str | None, Counter[str]]], tuple[int, int]]]:
    for _, chunk in zip(range(most), chunks, strict=False):
        yield pool.submit(simulate, *chunk), chunk


def simulate(first: int, last: int) -> tuple[str | None, Counter[str]]:
    """Run these seeds; the first failure, if there is one, and what bit."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django  # noqa: PLC0415 - in each process, before the models that the simulation names

    django.setup()
    from tests.realtime.simulation import PromiseBroken, Simulation  # noqa: PLC0415 - as above

    bit: Counter[str] = Counter()
    for seed in range(first, last):
        try:
            bit += Simulation(seed).run()
        except PromiseBroken as broken:
            return f"{broken}\nreplay: python -m tests.realtime.simulate --from {seed} --count 1", bit
    return None, bit


if __name__ == "__main__":
    sys.exit(main())
