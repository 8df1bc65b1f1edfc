"""A strict reader of IDX files, the format of MNIST and Fashion-MNIST.

A file is a magic number (two zero bytes, the type 0x08 for unsigned bytes, the number of
dimensions), each dimension as a big-endian 32-bit integer, and then exactly the bytes of the array.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.errors import UserError, explained


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in the gzipped IDX file at `path`.

    Args:
        path: the file.
        dimensions: how many dimensions the array must have: 3 for images, 1 for labels.

    Raises:
        UserError: naming the file, if it is missing, unreadable, not gzip, cut short, of another
            type or number of dimensions, or longer or shorter than its own header says.
    """
    content = _decompress(path)
    start = 4 + 4 * dimensions
    magic = 0x0800 + dimensions
    if len(content) < start:
        raise UserError(f"{path}: an IDX header has {start} bytes, got {len(content)}")
    found, *shape = struct.unpack(f">{1 + dimensions}I", content[:start])
    if found != magic:
        raise UserError(f"{path}: the magic number must be 0x{magic:08x}, got 0x{found:08x}")
    size = math.prod(shape)
    if len(content) - start != size:
        expected = " x ".join(map(str, shape))
        raise UserError(f"{path}: {expected} asks for {size} bytes, got {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _decompress(path: Path) -> bytes:
    with explained(f"{path}: cannot be read"):
        content = path.read_bytes()
    try:
        return gzip.decompress(content)
    except EOFError:
        raise UserError(f"{path}: the gzip data is cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: not a sound gzip file ({error})") from None
