"""Block-diagonal approximations of the Fisher matrix: KFAC, EKFAC, exact blocks, the diagonal."""
