"""What a user can put right: the command line says it in one line."""

from zenith.cli import UserError, explained

__all__ = ["UserError", "explained"]
