"""Open Image Denoise, once, on a whole merged picture, in place."""

from __future__ import annotations

import sys
from typing import Any

import numpy

from workers.mediacheck import BadMedia

MEMORY_MIB = 512
"""What it may take beside the pictures; it works in tiles of its own that overlap, so that none of them show."""


def denoise(color: Any, albedo: Any, normal: Any, *, threads: int) -> None:
    """Replace ``color`` (rows x columns x 3, linear, 32-bit) by its denoised self.

    ``albedo`` and ``normal`` of the same shape, 16 or 32 bits, keep edges and textures; None where they are not known.
    Raises BadMedia.
    """
    # pyoidn imports PyTorch where it finds it, which would cost more memory than a row of tiles.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    import pyoidn

    with pyoidn.Device(pyoidn.OIDN_DEVICE_TYPE_CPU) as device:
        device.set_int("numThreads", threads)
        device.set_bool("setAffinity", False)
        device.commit()
        with pyoidn.Filter(device, pyoidn.OIDN_FILTER_TYPE_RT) as work:
            _set(pyoidn, work, pyoidn.OIDN_IMAGE_COLOR, color)
            if albedo is not None:
                _set(pyoidn, work, pyoidn.OIDN_IMAGE_ALBEDO, albedo)
            if albedo is not None and normal is not None:
                _set(pyoidn, work, pyoidn.OIDN_IMAGE_NORMAL, normal)
            _set(pyoidn, work, pyoidn.OIDN_IMAGE_OUTPUT, color)
            work.set_bool("hdr", True)
            work.set_int("maxMemoryMB", MEMORY_MIB)
            work.commit()
            work.execute()
            fault = device.get_error()
    if fault:
        raise BadMedia(f"the picture cannot be denoised: {fault}")


def _set(pyoidn: Any, work: Any, name: str, pixels: Any) -> None:
    kind = pyoidn.OIDN_FORMAT_HALF3 if pixels.dtype == numpy.float16 else pyoidn.OIDN_FORMAT_FLOAT3
    work.set_image(name, pixels, kind)
