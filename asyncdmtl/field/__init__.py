"""The fields over which vectors are combined: GF(2^8) on raw bytes, and the reals."""
