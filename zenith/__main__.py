"""`python -m zenith` is the command `zenith`."""

import sys

from zenith.cli import main

sys.exit(main())
