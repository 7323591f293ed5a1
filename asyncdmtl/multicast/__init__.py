"""Broadcast in datagrams, without sockets or clocks: cutting, sealing, sending, receiving, repairing."""
