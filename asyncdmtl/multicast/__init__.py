"""Multicast of coded rows in datagrams: cutting, encryption and repair, without sockets or clocks."""
