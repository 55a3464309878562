"""Kernel times from packed tables, by kernel family."""
