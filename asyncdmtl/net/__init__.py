"""Connections over TCP and UDP, TLS, proofs of identity, and the event loop: the only room with sockets."""
