"""From tables and recipes to partitions of numbers, the same at all sites."""
