"""The only package with sockets: TCP and UDP, TLS, proofs of identity, and the event loop."""
