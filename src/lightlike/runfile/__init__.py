"""Run files: a measurement of anyone's own model and data, described in TOML."""

from lightlike.runfile.run import TABLES, Run, read_run

__all__ = ["TABLES", "Run", "read_run"]
