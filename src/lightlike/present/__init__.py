"""Results for people: they see results, never a model."""
