"""MNIST, real images: as good as torch with the same network, and both backends agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import veloflow
from veloflow.runtime.storage.checkpoint import read_checkpoint
from veloflow.units import read_idx

_DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _DATA.is_dir(), reason="the images are not beside the checkout"),
]


@pytest.mark.opencl
def test_the_backends_agree_in_every_parameter_after_an_epoch(tmp_path: Path) -> None:
    errors, saved = [], []
    for device in ("numpy", "opencl"):
        result = veloflow.run(
            "mnist_mlp", data=_DATA, epochs=1, device=device, checkpoint=tmp_path / device
        )
        errors.append(result.best["validation_error_percent"])
        saved.append(read_checkpoint(tmp_path / device / "last.safetensors").parameters)
    assert abs(errors[0] - errors[1]) <= 0.3
    for name, values in saved[0].items():
        np.testing.assert_allclose(saved[1][name], values, atol=1e-3, err_msg=name)


@pytest.mark.opencl
@pytest.mark.parametrize("device", ["numpy", "opencl"])
def test_the_defaults_reach_the_error_that_they_promise(device: str) -> None:
    result = veloflow.run("mnist_mlp", data=_DATA, device=device)
    assert result.best["validation_error_percent"] <= 4.8


@pytest.mark.parametrize(("moment", "decay"), [(0.9, 5e-4), (0.0, 5e-5)])
def test_torch_with_the_same_network_is_as_good(moment: float, decay: float) -> None:
    ours = veloflow.run("mnist_mlp", data=_DATA, device="numpy", moment=moment, decay=decay)
    theirs = _torch_error(moment, decay)
    assert abs(ours.best["validation_error_percent"] - theirs) <= 0.4


def _torch_error(moment: float, decay: float) -> float:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = [read_idx(_DATA / f"{name}-images-idx3-ubyte.gz") for name in ("train10k", "t10k")]
    x, v = (torch.tensor(a.reshape(-1, 784) / 127.5 - 1, dtype=torch.float32) for a in images)
    labels = [read_idx(_DATA / f"{name}-labels-idx1-ubyte.gz") for name in ("train10k", "t10k")]
    y, w = (torch.tensor(a.astype(np.int64)) for a in labels)
    first, second = torch.nn.Linear(784, 100), torch.nn.Linear(100, 10)

    def net(batch):
        return second(1.7159 * torch.tanh(0.6666 * first(batch)))

    parameters = [*first.parameters(), *second.parameters()]
    solver = torch.optim.SGD(parameters, lr=0.03, momentum=moment, weight_decay=decay)
    best = 100.0
    for _ in range(30):
        for batch in torch.randperm(len(x)).split(60):
            solver.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            solver.step()
        with torch.no_grad():
            best = min(best, 100 * float((net(v).argmax(1) != w).float().mean()))
    return best


def test_lenet_learns_in_two_epochs() -> None:
    result = veloflow.run("mnist_caffe", data=_DATA, epochs=2)
    assert result.best["validation_error_percent"] <= 6.0


@pytest.mark.stress
def test_lenet_is_as_good_as_torch() -> None:
    """torch with the same network and settings: 1.88 and 1.91 % in two runs."""
    result = veloflow.run("mnist_caffe", data=_DATA, epochs=15)
    assert result.best["validation_error_percent"] <= 2.1
