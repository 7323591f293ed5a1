"""Hierarchies: relays between workers and server, and the loads of every link (docs/theory.md, section 7)."""
