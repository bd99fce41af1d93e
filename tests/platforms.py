"""Marks of tests that only some systems can run."""

from __future__ import annotations

import os
import sys

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="uses signals, limits or links as POSIX systems have them")
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses a limit or a folder that only Linux has")
