"""The messages of the protocol: immutable values, with every field checked when one arrives."""
