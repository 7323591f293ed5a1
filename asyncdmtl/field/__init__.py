"""What vectors are combined in: GF(2^8) on raw bytes, and the reals."""
