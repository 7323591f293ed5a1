"""A relay between workers and a server, or another relay (docs/relays.md)."""
