"""Measure the speed of coding, beside bare calls of ISA-L's own C function.

    python tools/bench_coding.py [--seconds S]

The first table has products of dense matrices. The second has encoding, recombining and decoding as in plans,
and their share of the time of a round whose bytes go through a server's link of 1 Gbit/s. Rates are GB/s of
coefficients × bytes (an r × k matrix times rows of L bytes counts r·k·L, zeros and ones included). Every
result is compared with the NumPy kernel's, or with ISA-L's, before its rate is printed; the fastest of
several calls counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from results import Table, processor, write_results

from asyncdmtl.arrays import Bytes
from asyncdmtl.field import isal, linalg
from asyncdmtl.field.gf256 import Product, kernel_name
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

# (r, k, L): rows that fit the cache, then rows that do not.
SHAPES = [
    (3, 5, 256),
    (4, 10, 4096),
    (10, 10, 16384),
    (20, 40, 4096),
    (40, 40, 8192),
    (100, 100, 4096),
    (2, 10, 4 << 20),
    (4, 10, 4 << 20),
    (10, 10, 4 << 20),
    (3, 40, 4 << 20),
    (20, 40, 4 << 20),
    (40, 40, 4 << 20),
    (100, 100, 1 << 20),
]


# Workers, partitions, copies, and the share by which a plan's load may exceed the minimum.
PLANS = [
    (5, 20, 3, Fraction(0)),
    (8, 8, 4, Fraction(0)),
    (20, 60, 3, Fraction(0)),
    (20, 60, 3, Fraction(1, 100)),
    (20, 60, 10, Fraction(1, 100)),
]

# The numbers of a vector, float32, and the bytes per second of the server's link.
NUMBERS, LINK = 250_000, 1e9 / 8


def best_time(call: Callable[[], object], seconds: float) -> float:
    """Shortest time of a call, repeated for `seconds` and at least three times."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def bare_isal(matrix: Bytes, sources: Bytes | list[Bytes], out: Bytes) -> Callable[[], object] | None:
    """A prepared call of `ec_encode_data`, as a C program would make it."""
    if (library := isal.library()) is None:
        return None
    r, k = matrix.shape
    tables = np.empty(32 * r * k, dtype=np.uint8)
    library.ec_init_tables(k, r, matrix.ctypes.data, tables.ctypes.data)
    read = np.array([row.ctypes.data for row in sources], dtype=np.uintp)
    written = np.array([row.ctypes.data for row in out], dtype=np.uintp)
    addresses = (tables.ctypes.data, read.ctypes.data, written.ctypes.data)

    def call() -> object:
        library.ec_encode_data(out.shape[1], k, r, *addresses)
        return tables, read, written  # kept alive here, since C does not do so

    return call


def measure(shape: tuple[int, int, int], seconds: float, rng: np.random.Generator) -> list[float | None]:
    """Rates for one shape: Product with 1 and 2 threads, bare ISA-L, NumPy."""
    r, k, length = shape
    matrix = rng.integers(2, 256, (r, k), dtype=np.uint8)
    sources = rng.integers(0, 256, (k, length), dtype=np.uint8)
    out = np.zeros((r, length), dtype=np.uint8)
    product, oracle = Product(matrix), Product(matrix, "numpy")
    start = time.perf_counter()
    expected = oracle(sources, threads=1)
    oracle_time = time.perf_counter() - start
    calls = [
        lambda: product(sources, out, threads=1),
        lambda: product(sources, out, threads=2),
        bare_isal(matrix, sources, out),
    ]
    rates: list[float | None] = []
    for call in calls:
        if call is None:
            rates.append(None)
            continue
        out[:] = 0
        call()
        if not np.array_equal(out, expected):
            raise SystemExit(f"WRONG RESULT for {r} × {k}, {length} bytes")
        rates.append(r * k * length / best_time(call, seconds) / 1e9)
    if oracle_time < seconds:
        oracle_time = best_time(lambda: oracle(sources, out, threads=1), seconds)
    return [*rates, r * k * length / oracle_time / 1e9]


def bare_time(matrix: Bytes, sources: list[Bytes], expected: Bytes, seconds: float) -> float | None:
    """Seconds of ISA-L's own function for a product, with one thread; None without ISA-L."""
    out = np.zeros_like(expected)
    if not matrix.size or (call := bare_isal(matrix, sources, out)) is None:
        return None
    call()
    if not np.array_equal(out, expected):
        raise SystemExit(f"WRONG RESULT for a matrix of shape {matrix.shape}")
    return best_time(call, seconds)


def show_plan(plan: Plan, seconds: float, rng: np.random.Generator) -> None:
    """Print rates of encoding, recombining and decoding, and their share of a round."""
    layout = plan.vector_format(NUMBERS, "float32")
    V = layout.allocate(len(plan.placement.partitions))
    V[:] = rng.integers(0, 256, V.shape, dtype=np.uint8)
    P = plan.subpackets
    own = [np.concatenate([V[n * P : (n + 1) * P] for n in stored]) for stored in plan.placement.stored]
    rows = [row for k, packets in enumerate(own) for row in plan.coders.encoder(k)(packets)]
    down = plan.coders.recombiner(rows)
    received = [*down[list(plan.deliveries[0].rows)]]
    encode, recombine, decode = plan.coders.encoder(0), plan.coders.recombiner, plan.coders.decoder(0)
    steps = (
        ("encode", encode._product.matrix, [*own[0]], partial(encode, own[0])),
        ("recombine", plan.downlink_matrix, rows, partial(recombine, rows)),
        ("decode", decode._product.matrix, [*received, *own[0]], partial(decode, received, own[0])),
    )
    total = 0.0
    for name, matrix, sources, call in steps:
        out = call()
        time_taken = best_time(partial(call, out), seconds)
        total += time_taken
        bare = bare_time(matrix, sources, out, seconds)
        work = matrix.size * layout.packet_bytes / 1e9
        cells = [
            f"{name:>10}",
            f"{matrix.shape[0]} × {matrix.shape[1]}".rjust(13),
            f"{layout.packet_bytes:9d}",
        ]
        cells += [f"{work / time_taken:9.2f}", "–".rjust(9) if bare is None else f"{work / bare:9.2f}"]
        print(" ".join(cells), f"{time_taken * 1e3:9.2f} ms")
    wire = float(plan.uplink_load + plan.wire_downlink_load) * layout.padded_bytes / LINK
    print(
        f"{'':>10} coding {total:.3f} s, the bytes {wire:.3f} s at 1 Gbit/s: "
        f"coding is {total / (total + wire):.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="time per measurement (default 0.2)")
    parser.add_argument("--results", type=Path, help="write the first table here as JSON")
    options = parser.parse_args()
    seconds = options.seconds

    print(f"{processor()}, {os.cpu_count()} cores, {platform.platform()}")
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, kernel {kernel_name()}", end="")
    print(f", pyeclib {version('pyeclib')}" if isal.library() else ", no ISA-L")
    print("\nGB/s of coefficients × bytes; ratio = Product with one thread / bare ISA-L\n")
    print(f"{'r × k':>10} {'L':>8} {'1 thread':>9} {'2 threads':>9} {'bare':>9} {'NumPy':>7} {'ratio':>6}")
    rng = np.random.default_rng(0)
    shown: list[tuple[str, ...]] = []
    for r, k, length in SHAPES:
        one, two, bare, plain = measure((r, k, length), seconds, rng)
        ratio = one / bare if one and bare else None
        cells = [f"{r} × {k}".rjust(10), f"{length:8d}"]
        widths = ((one, 9), (two, 9), (bare, 9), (plain, 7), (ratio, 6))
        cells += ["–".rjust(width) if x is None else f"{x:{width}.2f}" for x, width in widths]
        print(" ".join(cells), flush=True)
        figures = ["–" if x is None else f"{x:.2f}" for x in (one, two, bare, ratio)]
        shown.append((f"{r} × {k}, {length:,}", *figures))
    if options.results is not None:
        head = ("rows × sources, bytes of a row", "1 thread", "2 threads", "bare ISA-L", "1 thread ÷ bare")
        write_results(options.results, [Table("coding", head, tuple(shown))])

    print(f"\nPlans, vectors of {NUMBERS:,} float32; GB/s with all cores, and of bare ISA-L with one thread")
    print(f"{'':>10} {'r × k':>13} {'L':>9} {'asyncdmtl':>9} {'bare':>9}")
    for workers, partitions, copies, overhead in PLANS:
        plan = make_plan(Placement.cyclic(workers, partitions, copies), max_overhead=overhead)
        print(
            f"{workers} workers × {partitions} partitions, {copies} copies, {plan.subpackets} packets a "
            f"vector, uplink {float(plan.uplink_load):.2f}, bound {float(plan.uplink_bound):.2f}"
        )
        show_plan(plan, seconds, rng)

    print()
    for n in (200, 1000):
        square = rng.integers(0, 256, (n, n), dtype=np.uint8)
        rank = best_time(partial(linalg.rank, square), seconds)
        inverse = best_time(partial(linalg.invert, square), seconds)
        print(f"{n} × {n}: rank {rank * 1e3:.1f} ms, inverse {inverse * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
