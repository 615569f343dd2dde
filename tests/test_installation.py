"""What the installation promises about the compiled kernels."""

import os
import shutil

import pytest

from ntangent.jet.backends import native


def test_a_machine_with_a_compiler_has_the_kernels() -> None:
    # Where they do not compile, the installation falls back to plain Python: that must not go unnoticed.
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler on this machine")
    if os.environ.get("NTANGENT_TEST_WITHOUT_KERNELS"):
        pytest.skip("asked to test an installation without kernels")
    assert native.available(), native.reason()
