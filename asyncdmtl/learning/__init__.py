"""What is trained: local linear models, aggregation within tasks, coupling between tasks."""
