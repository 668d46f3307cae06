"""Train on handwritten digits in several processes, with a loop of one's own and a key-value store.

    python digits_with_store.py                        a store and three workers, here
    python digits_with_store.py --kill 1               worker 1 is killed on its way
    veloflow store tcp://127.0.0.1:5600 --workers 2 --mean --updater momentum:0.5,moment=0.9
    python digits_with_store.py --join tcp://127.0.0.1:5600      in two other terminals

Each worker computes gradients on a part of each minibatch. Whoever is killed is missed by nobody
for longer than the store's patience.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits

import veloflow
from veloflow.kvstore import StoreServer

BATCH, HIDDEN = 60, 64
Weights = dict[str, np.ndarray]


def first_weights() -> Weights:
    """Return the weights to begin with; only those of the first worker count."""
    random = np.random.default_rng(1)
    return {
        "w1": random.normal(0, 0.1, (64, HIDDEN)).astype(np.float32),
        "b1": np.zeros(HIDDEN, np.float32),
        "w2": random.normal(0, 0.1, (HIDDEN, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }


def forward(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden layer (n, HIDDEN) and the probabilities (n, 10) of samples (n, 64)."""
    hidden = np.tanh(x @ w["w1"] + w["b1"])
    scores = hidden @ w["w2"] + w["b2"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def gradients(w: Weights, x: np.ndarray, labels: np.ndarray) -> Weights:
    """Return the gradients of the mean cross-entropy, by key."""
    hidden, error = forward(w, x)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    back = error @ w["w2"].T * (1 - hidden**2)
    return {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}


def work(address: str, epochs: int, codec: str, patience: float) -> None:
    """Train until the epochs are over; the worker of rank 0 says how well it went."""
    digits = load_digits()
    data = (digits.data / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(data))
    training, validation = order[:1500], order[1500:]
    with veloflow.KeyValueStore(address, codec=codec, patience=patience) as store:
        w = first_weights()
        for key, value in w.items():
            store.init(key, value)
        print(f"worker {store.rank} of {store.workers}, pid {os.getpid()}", flush=True)
        for epoch in range(epochs):
            shuffled = np.random.default_rng(epoch).permutation(training)
            for first in range(0, len(shuffled), BATCH):
                mine = shuffled[first : first + BATCH][store.rank :: store.workers]
                for key in w:
                    store.pull(key, out=w[key])
                for key, gradient in gradients(w, data[mine], digits.target[mine]).items():
                    store.push(key, gradient)
            if epoch == 0:
                print(f"worker {store.rank} has done epoch 0", flush=True)
        for key in w:
            store.pull(key, out=w[key])
        wrong = forward(w, data[validation])[1].argmax(1) != digits.target[validation]
        print(f"worker {store.rank}: validation error {100 * wrong.mean():.2f} %", flush=True)


def main() -> None:
    """Read the command line; be the store and its workers, or one worker."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--join", metavar="ADDRESS", help="be one worker of the store there")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--codec", default="plain")
    parser.add_argument("--mode", default="sync")
    parser.add_argument("--patience", type=float, default=1.0)
    parser.add_argument("--kill", type=int, metavar="N", help="kill the Nth worker on its way")
    given = parser.parse_args()
    if given.join:
        work(given.join, given.epochs, given.codec, given.patience)
        return
    server = StoreServer(
        "tcp://127.0.0.1:0",
        workers=given.workers,
        mode=given.mode,
        updater="momentum:0.2,moment=0.9",
        mean=True,
        patience=given.patience,
        say=lambda text: print(f"store: {text}", flush=True),
    ).start()
    command = [sys.executable, __file__, "--join", server.address, "--epochs", str(given.epochs)]
    command += ["--codec", given.codec, "--patience", str(given.patience)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(given.workers)
    ]
    if given.kill is not None:
        victim = processes[given.kill]
        while "has done epoch 0" not in victim.stdout.readline():
            pass
        victim.send_signal(signal.SIGKILL)
    for process in processes:
        print(process.stdout.read(), end="", flush=True)
        process.wait()
        process.stdout.close()
    server.close()
    print(f"store: {server.counts()}")


if __name__ == "__main__":
    main()
