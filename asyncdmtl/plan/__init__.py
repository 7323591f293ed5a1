"""Plans: from a placement to matrices, without data, sockets or clocks."""
