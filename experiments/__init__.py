"""The paper's experiments: every rival as a real optimizer, and what each of them costs.

A package of its own, which the wheel does not ship: `python -m experiments --help`, from a clone.
"""
