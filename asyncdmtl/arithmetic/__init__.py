"""Arithmetic whose results have the same bits on every machine.

NumPy's matrix products, `exp`, `log`, eigenvectors and even plain sums differ in their last bits between
CPUs, BLAS libraries and versions. Three things are the same everywhere: one IEEE operation `+ − × ÷ √` on
each number by itself, exact sums, and sums in a fixed order. Everything here is made of these alone:

- `sums`: sums, means and norms, as halving trees;
- `products`: dot products, matrix products, Gram matrices;
- `elementary`: `exp`, `log` and functions made of them, such as `expit`;
- `spectral`: eigenvalues, singular values and their vectors;
- `solving`: Cholesky and QR factors, and the solution of symmetric systems;
- `probe`: a digest of all these computations; machines with equal digests compute alike.

Results depend on shapes and values only, not on strides, dtype promotions, threads or versions.
"""
