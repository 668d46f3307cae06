"""What tests of units share, besides the workflows that ``harness`` (in tests/tools) makes."""

from __future__ import annotations

import pytest

from veloflow.devices.numpy import NumpyDevice


@pytest.fixture
def numpy_device():
    """Return a NumPy device, the judge of what is right."""
    device = NumpyDevice()
    yield device
    device.close()
