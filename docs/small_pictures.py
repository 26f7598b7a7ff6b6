"""Make PNG files small enough for the repository, in place: `python docs/small_pictures.py FILE...`.

256 colours; fewer, chosen to be far apart, where that is more than 400 kB, as of large grids of RDMs.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

MOST_BYTES = 400_000
_WAYS = (
    (256, Image.Quantize.MEDIANCUT),
    (256, Image.Quantize.MAXCOVERAGE),
    (128, Image.Quantize.MAXCOVERAGE),
    (64, Image.Quantize.MAXCOVERAGE),
)


def make_small(file: Path) -> int:
    """Write the file anew; the number of its bytes."""
    with Image.open(file) as image:
        picture = image.convert("RGB")
    for colours, method in _WAYS:
        content = io.BytesIO()
        few = picture.quantize(colours, method=method, dither=Image.Dither.NONE)
        few.save(content, "PNG", optimize=True)
        if content.tell() < MOST_BYTES:
            break
    return file.write_bytes(content.getvalue())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {make_small(Path(name)) / 1000:.0f} kB")
