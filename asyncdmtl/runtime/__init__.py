"""The only rooms with asyncio: connections, the server's and the workers' side of a run."""
