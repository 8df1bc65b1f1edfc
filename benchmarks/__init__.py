"""Measurements of the package's cost; not shipped in the wheel."""
