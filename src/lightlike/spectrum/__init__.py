"""Linear algebra on any operator with `shape` and `@`; it knows no network."""
