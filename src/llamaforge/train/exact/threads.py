"""Compute threads: exactly as many as the job says, whatever the environment says.

The number of threads decides how a matrix product is cut, and with it the last bits of every
gradient. Variables of OpenMP, MKL and oneDNN can change it behind PyTorch's back
(OMP_THREAD_LIMIT below the thread count even gives NaN in bf16), so they are removed before torch
is imported, and the size of a real parallel region is checked afterwards.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from llamaforge.errors import LlamaForgeError

_PREFIXES = ("OMP_", "KMP_", "GOMP_", "MKL_", "DNNL_", "ONEDNN_", "GOTO_", "OPENBLAS_", "ATEN_CPU_")


_OURS = {
    # Threads that spin while they wait starve each other where cores are shared: 40 times slower
    # was seen with two processes of two threads on two cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # oneDNN keeps a compiled kernel for each shape, and slices come in many; its own limit of
    # 1,024 was most of the growth of a small job's memory.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}
"""What is set in their place. None of it changes a bit of a result."""


def sanitise_environment() -> list[str]:
    """Removes variables that change kernels or threads, and sets our own.

    Call it before torch is imported.

    Returns:
        The names of what was removed.
    """
    removed = sorted(name for name in os.environ if name.startswith(_PREFIXES))
    for name in removed:
        del os.environ[name]
    os.environ.update(_OURS)
    return removed


def use(threads: int) -> None:
    """Makes torch compute with exactly this many threads, and sees that it does.

    Raises:
        LlamaForgeError: a parallel region has another size.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)  # a library built with -ffast-math turns it on when loaded
    seen = team_size(threads)
    if torch.get_num_threads() != threads or seen not in (None, threads):
        raise LlamaForgeError(
            f"the job computes with {threads} threads per rank, but a parallel region here "
            f"has {seen}",
            hint="unset OMP_THREAD_LIMIT, or check the limits on processes of this user",
        )


def team_size(threads: int) -> int | None:
    """Threads that a parallel region of PyTorch's OpenMP runtime really gets.

    Returns:
        Their number; None where the runtime can't be asked.
    """
    runtime = _openmp()
    if runtime is None or threads == 1:
        return None if runtime is None else 1
    sizes: list[int] = []
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
        lambda _: sizes.append(runtime.omp_get_num_threads())
    )
    runtime.GOMP_parallel(body, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    return sizes[0] if len(sizes) == sizes[0] else len(sizes)


def _openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that torch has already loaded, if it speaks GNU's interface."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rsplit(" ", 1)[-1]
        if "gomp" in Path(path).name or "libomp" in Path(path).name:
            library = ctypes.CDLL(path)
            return library if hasattr(library, "GOMP_parallel") else None
    return None
