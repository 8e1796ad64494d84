"""The question: a model, its data and an output distribution."""
