"""One farm of short calls, on veloflow, Dask, Ray, torchrun or Ray Train: ``recovery_job.py ENGINE
LOG CALLS SECONDS``.

Each call writes its number, its process and the time into LOG; so does each slave that joins.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

SLAVES = 4

DEFINITION = """
import sys
sys.path.insert(0, {folder!r})
from recovery_job import call
from veloflow import Workflow
from veloflow.units import FarmMap

def build(wf: Workflow) -> None:
    items = [dict(number=n, log={log!r}, seconds={seconds}) for n in range({calls})]
    wf.start >> FarmMap(wf, call, items=items) >> wf.end
"""


def note(log: str, *words: object) -> None:
    """Append a line; short ones are written whole."""
    with Path(log).open("a", buffering=1) as file:
        file.write(" ".join(map(str, (*words, time.time()))) + "\n")


def call(number: int, log: str, seconds: float) -> dict[str, int]:
    """Do nothing for a while."""
    note(log, "call", number, os.getpid())
    time.sleep(seconds)
    return {"number": number}


def on_veloflow(log: str, calls: int, seconds: float) -> float:
    import veloflow
    from veloflow.core import Message

    def hear(message: Message) -> None:
        if "joined" in message.text:
            note(log, "joined")
        elif "slaves join with" in message.text:
            note(log, "listens", message.text.split()[-1])

    with TemporaryDirectory() as folder:
        own = Path(folder) / "farmed.py"
        place = str(Path(__file__).parent)
        own.write_text(DEFINITION.format(folder=place, log=log, calls=calls, seconds=seconds))
        result = veloflow.run(
            own,
            slaves=SLAVES,
            listen=["tcp://127.0.0.1:0"],
            device="numpy",
            watch=lambda session: session.events.subscribe(Message, hear),
        )
    return result.seconds


def on_dask(log: str, calls: int, seconds: float) -> float:
    from distributed import Client, LocalCluster

    with LocalCluster(
        n_workers=SLAVES, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster, Client(cluster) as client:  # fmt: skip
        client.wait_for_workers(SLAVES)
        began = time.time()
        client.gather([client.submit(call, n, log, seconds) for n in range(calls)])
        return time.time() - began


def on_ray(log: str, calls: int, seconds: float) -> float:
    import ray

    ray.init(num_cpus=SLAVES, include_dashboard=False, logging_level="error")
    remote = ray.remote(max_retries=5)(call)
    ray.get([remote.remote(n, log, 0.0) for n in range(-SLAVES, 0)])
    began = time.time()
    ray.get([remote.remote(n, log, seconds) for n in range(calls)])
    return time.time() - began


def on_torchrun(log: str, calls: int, seconds: float) -> float:
    """Run half as many steps, each of two workers that then add up a number over gloo."""
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "--max-restarts=5", __file__, "worker", log, str(calls // 2), str(seconds)], check=True,
    )  # fmt: skip
    return since_the_first_call(log)


def since_the_first_call(log: str) -> float:
    first = next(one for one in Path(log).read_text().splitlines() if one.startswith("call"))
    return time.time() - float(first.split()[-1])


def on_raytrain(log: str, calls: int, seconds: float) -> float:
    """Run the steps of torchrun's workers in those of Ray Train, which starts all of them again."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=SLAVES, include_dashboard=False, logging_level="error")
    TorchTrainer(
        lambda config: steps(log, calls // 2, seconds),
        train_loop_config={},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            storage_path=str(Path(log).parent), failure_config=FailureConfig(max_failures=5)
        ),
    ).fit()
    return since_the_first_call(log)


def on_worker(log: str, calls: int, seconds: float) -> float:
    """A worker of torchrun."""
    from torch import distributed

    distributed.init_process_group("gloo")
    steps(log, calls, seconds)
    distributed.destroy_process_group()
    return 0.0


def steps(log: str, calls: int, seconds: float) -> None:
    """Step together with the other workers, from the last step on that was saved."""
    import torch
    from torch import distributed

    saved = Path(log + ".step")
    start = int(saved.read_text()) if saved.exists() else 0
    for step in range(start, calls):
        call(step, log, seconds)
        distributed.all_reduce(torch.ones(1))
        if distributed.get_rank() == 0:
            new = Path(f"{log}.new")
            new.write_text(str(step + 1))
            new.replace(saved)


if __name__ == "__main__":
    engine, log, calls, seconds = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    import recovery_job  # under a name that other processes can import

    took = getattr(recovery_job, f"on_{engine}")(log, int(calls), float(seconds))
    print(f"done {took:.3f}")
