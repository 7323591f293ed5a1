"""Placement design: the partitions of each worker, for given capacities, so that loads are small."""
