"""Training: local linear models, aggregation within tasks, coupling between tasks."""
