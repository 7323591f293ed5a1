"""What workers of a blind run keep from the server: a key of theirs, and what is sealed or masked with it."""
