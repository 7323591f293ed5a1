import bench_epochs
import bench_rounds
from support.problems import make_partitions


def test_rounds_are_counted_for_each_number_of_epochs() -> None:
    made = bench_epochs.by_epochs("small", make_partitions(6, "squared", features=3), "squared", "l21", 0.1)
    assert made is not None
    row, excess = made
    assert len(row) == len(bench_epochs.HEAD)
    assert abs(excess) < bench_rounds.NEAR
    assert all(0 < int(cell) <= 20 for cell in row[3:6])
