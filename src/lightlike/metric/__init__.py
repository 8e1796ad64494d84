"""The metric of parameter space: the root A, its Gram matrix A Aᵀ and the Fisher matrix Aᵀ A."""
