"""From a placement to matrices: no data, no sockets, no clock."""
