"""The lightlike geometry of parameter space: rank, radical and screen."""
