"""The demonstration behind `zenith demo`: ZENITH and SGD side by side on real images.

`settings` says what is asked for, `data` (with `idx`) loads the images, `model` and `optimizers`
build what is trained, `train` trains all optimizers in step with one another and yields `records`,
`output` keeps them as JSON lines, and `summary`, `table` and `picture` show them. `report` does so
from a folder's records alone; `run` joins all of it; `commands` is what Typer sees, and `terminal`
what a person sees while it runs. Nothing here is imported by `import zenith`.
"""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the version of this package, or `unknown` where it is not installed."""
    try:
        return version("zenith-optim")
    except PackageNotFoundError:
        return "unknown"
