"""The wire, without sockets or clocks: bytes in, messages out, and the other way round."""
