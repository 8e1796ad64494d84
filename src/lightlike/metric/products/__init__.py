"""Products with the Fisher matrix and its root, of which not one row is ever written out."""
