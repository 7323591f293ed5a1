"""The delay of a stream of jobs: how work is split, how long a round takes, and how long jobs wait."""
