"""Train with slaves over a slow network, in a network namespace of one's own: what test_overlap.py
starts, as ``unshare -rn python paced_training.py NETWORK GBIT SLAVES OPTION=VALUE …``.

The link between master and slaves carries GBIT Gbit/s each way, as the master's network card does.
It prints the seconds of each epoch and the result as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import veloflow
from veloflow.core import EpochDone, Message

PORT = 5555

#: name -> layers, minibatch, minibatches of an epoch
NETWORKS = {
    "mlp": ("tanh(1000), tanh(1000), softmax(10)", 200, 6),
    "conv": ("conv(20, 5), max_pool(2), conv(50, 5), max_pool(2), tanh(500), softmax(10)", 64, 6),
}

DEFINITION = """
from veloflow.units import *
import numpy as np

def build(wf, *, epochs: int = 6) -> None:
    random = np.random.default_rng(1)
    data = random.random(({count}, 28, 28), np.float32)
    loader = ArrayLoader(wf, data, random.integers(0, 10, {count}), minibatch_size={batch})
    standard_workflow(wf, loader=loader, layers=[{layers}], learning_rate=0.01, max_epochs=epochs)
"""


def pace(gbit):
    """Let each direction of the loopback carry so much; tell them apart by the master's port."""
    commands = [
        "ip link set lo up",
        "tc qdisc add dev lo root handle 1: htb default 1",
        "tc class add dev lo parent 1: classid 1:1 htb rate 40gbit quantum 60000",
    ]
    for number, side in ((10, "sport"), (20, "dport")):
        rate = f"rate {gbit}gbit burst 256k cburst 256k quantum 60000"
        commands += [
            f"tc class add dev lo parent 1: classid 1:{number} htb {rate}",
            f"tc filter add dev lo parent 1: protocol ip u32 match ip {side} {PORT} 0xffff "
            f"flowid 1:{number}",
        ]
    for command in commands:
        subprocess.run(command.split(), check=True)


def main(network, gbit, slaves, options):
    """Train; print what it took."""
    pace(gbit)
    layers, batch, minibatches = NETWORKS[network]
    own = Path(os.environ["PACED_FOLDER"]) / f"{network}.py"
    own.write_text(DEFINITION.format(layers=layers, batch=batch, count=batch * minibatches))
    started, ends = [], []

    def said(message):
        if "slaves join with" not in message.text:
            return
        command = [sys.executable, "-m", "veloflow", "slave", f"tcp://127.0.0.1:{PORT}", "-q"]
        environment = {
            **os.environ, "VELOFLOW_NO_SHARED_MEMORY": "1", "OPENBLAS_NUM_THREADS": "1"
        }  # fmt: skip
        for _ in range(int(slaves)):
            started.append(
                subprocess.Popen([*command, "--device", "numpy"], env=environment)
            )  # fmt: skip

    def watch(session):
        session.events.subscribe(Message, said)
        session.events.subscribe(EpochDone, lambda event: ends.append(time.perf_counter()))

    given = dict(one.split("=", 1) for one in options)
    try:
        result = veloflow.run(
            own, device="numpy", listen=[f"tcp://127.0.0.1:{PORT}"], watch=watch, **given
        )
    finally:
        for one in started:
            one.terminate()
            one.wait(20)
    seconds = [after - before for before, after in pairwise(ends)]
    print(json.dumps({"steps": [one / minibatches for one in seconds],
                      "sha": result.parameters_sha256, "bytes": result.more["bytes"]}))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
