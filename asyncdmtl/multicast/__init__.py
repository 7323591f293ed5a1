"""Multicast of coded rows in datagrams, without sockets or clocks: cut, encrypted, received and repaired."""
