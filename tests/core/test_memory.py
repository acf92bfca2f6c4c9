"""Memory that ran out is recognised, whoever reports it, and nothing else is taken for it."""

import errno

import pytest

from orchestrator.core.errors import DeviceError
from orchestrator.core.memory import is_out_of_memory


def caused(error: Exception) -> Exception:
    """Another error that this one led to."""
    try:
        raise ValueError("the call failed") from error
    except ValueError as other:
        return other


@pytest.mark.parametrize(("error", "expected"), [
    (MemoryError(), True),
    (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True),
    (OSError(errno.ENOMEM, "Cannot fork"), True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
    (ImportError("libtorch.so: failed to map segment from shared object"), True),
    (RuntimeError("std::bad_alloc"), True),
    (caused(RuntimeError("CUDA out of memory")), True),
    (OSError(errno.ENOSPC, "No space left on device"), False),
    (RuntimeError("shapes differ"), False),
    (DeviceError("age fold 0: out of memory on cpu."), False),
])  # fmt: skip
def test_out_of_memory_has_many_names(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
