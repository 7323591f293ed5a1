"""`python -m asyncdmtl.arithmetic`: describe this machine's arithmetic, with digests to compare machines."""

from __future__ import annotations

from asyncdmtl.arithmetic.probe import describe, digest, digests


def main() -> None:
    """Print the description and the digests of both kinds of arithmetic."""
    for name, value in describe().items():
        print(f"{name}: {value}")
    for kind in ("reproducible", "fast"):
        print(f"{kind}: {digest(kind).hex()}")
        for part, found in digests(kind).items():
            print(f"  {part}: {found.hex()}")


if __name__ == "__main__":
    main()
