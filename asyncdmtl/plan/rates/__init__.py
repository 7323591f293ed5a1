"""Uplink rates that meet the lower bounds, and the proofs that no less will do."""
