"""Arithmetic whose results have the same bits on every machine.

NumPy's matrix products, `exp`, `log`, eigenvectors and even plain sums differ in their last bits between
CPUs, BLAS libraries and versions. What does not: one IEEE operation `+ − × ÷ √` on each number by itself,
sums that are exact, and sums in an order that is written down. Everything here is made of these alone:

- `sums`: sums, means and norms, as halving trees;
- `products`: dot products, matrix products, Gram matrices;
- `elementary`: `exp`, `log` and what is made of them;
- `spectral`: eigenvalues, singular values and their vectors;
- `solving`: Cholesky factors and the systems that they solve;
- `probe`: a digest of all this, by which two machines find out whether they agree.

Results depend on shapes and values only, not on strides, dtype promotions, threads or versions.
"""
