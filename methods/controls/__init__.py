"""Controls: what any method must beat."""
