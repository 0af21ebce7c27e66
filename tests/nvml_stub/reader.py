"""Child process: one JSON line in per call of NvmlTelemetry, one out with the answer."""

import collections
import ctypes
import json
import sys

from scheduler.model.codec import encode
from scheduler.model.node import MigPlace
from workers.nvml import NvmlTelemetry, cut_here
from workers.nvml_cut import CutRefused

telemetry = NvmlTelemetry()


def calls_of(verb: str, *arguments) -> dict[str, int]:
    """Which NVML functions one call of ``verb`` uses, and how often."""
    import pynvml

    counted: collections.Counter[str] = collections.Counter()
    real = pynvml._nvmlGetFunctionPointer
    pynvml._nvmlGetFunctionPointer = lambda name: (counted.update([name]), real(name))[1]
    try:
        getattr(telemetry, verb)(*arguments)
    finally:
        pynvml._nvmlGetFunctionPointer = real
    return counted


def sizes_of(*structs: str) -> dict[str, list[int]]:
    """``name -> [size here, size in the stub]``."""
    import pynvml

    stub = ctypes.CDLL("libnvidia-ml.so.1")
    stub.stub_sizeof.restype = ctypes.c_ulong
    return {s: [ctypes.sizeof(getattr(pynvml, s)), stub.stub_sizeof(s.encode())] for s in structs}


for asked in sys.stdin:
    verb, *arguments = json.loads(asked)
    if verb == "calls_of":
        answer = calls_of(*arguments)
    elif verb == "cut":
        card, layout = arguments
        try:
            answer = telemetry.cut(card, tuple(MigPlace(start=at, profile=name) for at, name in layout))
        except CutRefused as refused:
            answer = str(refused)
    elif verb == "cut_here":
        card, layout = arguments
        answer = encode(cut_here({card: tuple(MigPlace(start=at, profile=name) for at, name in layout)}))
    elif verb == "sizes_of":
        answer = sizes_of(*arguments)
    else:
        found = getattr(telemetry, verb)
        answer = encode(found(*arguments) if callable(found) else found)
    print(json.dumps(answer), flush=True)
telemetry.close()
