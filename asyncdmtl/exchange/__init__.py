"""One round of both sides without a wire: what workers and server compute between messages."""
