# Copyright (c) dms_razor contributors. All rights reserved.
"""Loops for a CPU, compiled by Numba and run by PyTorch's own threads.

What is written out in operations of PyTorch reads and writes memory once for
each of them; a loop does so once for all. Numba brings its compiler with it,
so that users need none. It is an extra: whoever imports this module catches
the ImportError, and does the work with operations of PyTorch instead.

Threads of Numba's own would wait beside those of PyTorch, which keep their
cores busy for some milliseconds after each operation. So PyTorch's are asked:
those of GNU's OpenMP, with which its builds for Linux are linked. With another
OpenMP loops run on one core, and are used only where that is no loss
(:func:`worth_it`).
"""
import ctypes
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Callable, Optional, Tuple

import torch

try:
    from numba import carray, cfunc, njit, types
    from numba.extending import intrinsic
except Exception as error:
    # It may be too old, or of another NumPy; and it reads optional packages
    # by name, so that a folder "coverage" on the path is taken for one.
    if not (isinstance(error, ModuleNotFoundError) and error.name == 'numba'):
        warnings.warn(f'Numba is installed and cannot be imported ({error}): '
                      'searches on a CPU go without it, a little slower')
    raise ImportError('there is no Numba') from error

#: Makes a function a loop. Sums may be added up in another order; infinities
#: and NaN stay what they are, and a division by 0 gives them.
loop = njit(
    nogil=True,
    fastmath={'reassoc', 'contract', 'arcp', 'nsz'},
    error_model='numpy')
#: Numbers for which other threads are woken, at least.
LEAST = 2**15
#: Types that loops are compiled for.
KINDS = {torch.float32: types.float32, torch.float64: types.float64}


def _openmp() -> Optional[ctypes.CDLL]:
    """What knows the threads that PyTorch uses, if it does as GNU does."""
    folder = Path(torch.__file__).parent / 'lib'
    for path in folder.glob('libtorch_cpu.*'):
        with suppress(OSError, AttributeError):
            # Names are looked for in what it was linked with, too: another
            # OpenMP of the system has other threads.
            library = ctypes.CDLL(str(path))
            library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p,
                                              ctypes.c_uint, ctypes.c_uint)
            library.GOMP_parallel.restype = None
            return library
    return None


OPENMP = _openmp()


def _number(name: str) -> Callable[[], int]:
    if OPENMP is not None:
        return ctypes.CFUNCTYPE(ctypes.c_int)((name, OPENMP))
    # Compiled, too, as functions of C are: there is one thread, number 0.
    only = 1 if name == 'omp_get_num_threads' else 0
    return njit(lambda: only)


#: The number of the thread that runs a loop, and that of all of them.
own_number = _number('omp_get_thread_num')
_threads = _number('omp_get_num_threads')


@loop
def own_part(count: int) -> Tuple[int, int]:
    """First of ``count`` things that are this thread's, and the next one's."""
    thread, threads = own_number(), _threads()
    return count * thread // threads, count * (thread + 1) // threads


@lru_cache(None)
def pointer(kind: types.Type) -> Callable:
    """What makes addresses pointers to numbers of a type, in a loop."""

    @intrinsic
    def cast(context, address):
        signature = types.CPointer(kind)(types.int64)

        def generate(context, builder, signature, arguments):
            goal = context.get_value_type(signature.return_type)
            return builder.inttoptr(arguments[0], goal)

        return signature, generate

    return cast


def compiled(body: Callable, arguments: int) -> Callable[..., None]:
    """A function of C that hands numbers on to a loop.

    Args:
        body (Callable): A loop that is given an array of int64, and does
            the part of the thread that calls it.
        arguments (int): How many numbers it is given.

    Returns:
        Callable: Takes the number of threads, and the numbers.
    """

    @cfunc(types.void(types.CPointer(types.int64)))
    def outer(given):
        body(carray(given, (arguments, )))

    vector = ctypes.c_int64 * arguments
    alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(outer.address)

    def call(threads: int, *numbers: int) -> None:
        given = vector(*numbers)
        if threads > 1 and OPENMP is not None:
            OPENMP.GOMP_parallel(outer.address, ctypes.addressof(given),
                                 threads, 0)
        else:
            alone(ctypes.addressof(given))

    call.compiled = outer  # its machine code lives as long as it does
    return call


def worth_it() -> bool:
    """Whether loops can be compiled, and are no slower than operations."""
    several = OPENMP is not None or torch.get_num_threads() <= 2
    return several and _compiles()


@lru_cache(None)
def _compiles() -> bool:
    """Whether Numba works here; told once where it does not."""

    @loop
    def nothing(given):
        own_part(given[0])

    try:
        compiled(nothing, 1)(1, 1)
    except Exception as error:
        text = str(error).strip().partition('\n')[0]
        warnings.warn(f'Numba cannot compile here ({text}): searches on a CPU '
                      'go without it, a little slower')
        return False
    return True


def threads_for(numbers: int) -> int:
    """How many threads are to work on so many numbers."""
    return torch.get_num_threads() if numbers >= LEAST else 1
