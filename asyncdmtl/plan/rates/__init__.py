"""Uplink rates that meet the lower bounds, and the proofs of these bounds."""
