"""The wire protocol, without sockets or clocks: it turns bytes into messages and messages into bytes."""
