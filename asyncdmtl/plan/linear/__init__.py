"""Plans for linear targets: the server and all workers obtain `A·V` over the reals."""
