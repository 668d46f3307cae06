"""One training step of 784-100-10 as users of other programs would write it.

Each contestant is a class with ``steps(count)``, which makes that many steps on shuffled
minibatches of 100 out of 10,000 samples: gather, forward, cross-entropy, backward, SGD with
momentum. Run as a program it is tinygrad, in a process of its own: it reads counts and answers
with seconds.
"""

from __future__ import annotations

import sys
import time

import numpy as np

SAMPLES, INPUTS, HIDDEN, CLASSES, BATCH = 10_000, 784, 100, 10, 100
RATE, MOMENT = 0.03, 0.9


def data():
    """Return samples (n, 784) and labels (n,), the same for everybody."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, SAMPLES).astype(np.int32)
    centres = random.normal(size=(CLASSES, INPUTS))
    samples = (0.3 * centres[labels] + random.normal(size=(SAMPLES, INPUTS))).astype(np.float32)
    # two equal samples of different classes: a run would end when nothing is wrong any more
    samples[1], labels[1] = samples[0], (labels[0] + 1) % CLASSES
    return samples, labels


class Batches:
    """Indices of shuffled minibatches, pass after pass."""

    def __init__(self):
        self.random = np.random.default_rng(1)
        self.order, self.place = None, SAMPLES

    def __call__(self):
        if self.place >= SAMPLES:
            self.order, self.place = self.random.permutation(SAMPLES), 0
        self.place += BATCH
        return self.order[self.place - BATCH : self.place]


class Veloflow:
    """veloflow with the long way round: loader, units, decision and all."""

    def __init__(self, device, stack, **options):
        from veloflow.runtime.api import prepare
        from veloflow.units import ArrayLoader, softmax, standard_workflow, tanh

        self.name = f"veloflow, {device}"

        def build(wf) -> None:
            standard_workflow(
                wf,
                loader=ArrayLoader(wf, *data(), minibatch_size=BATCH),
                layers=[tanh(HIDDEN), softmax(CLASSES)],
                learning_rate=RATE,
                gradient_moment=MOMENT,
                weights_decay=0.0,
                max_epochs=0,
                fail_iterations=1 << 30,
            )

        self.session = stack.enter_context(prepare(build, device=device, **options))
        self.decision = next(u for u in self.session.workflow if "Decision" in u.name)
        self.flow = self.session.workflow.flow

    def made(self):
        return self.session.workflow.times()["GDTanh"].runs

    def steps(self, count):
        epochs, rest = divmod(count, SAMPLES // BATCH)
        assert not rest
        made = self.made()
        self.decision.max_epochs += epochs
        self.decision.complete.set(False)
        self.flow.start()
        self.flow.run()
        self.session.device.synchronize()
        made = self.made() - made
        if made != count - 1:  # the last minibatch of a run is measured only
            raise AssertionError(f"{made} steps were made, and not {count - 1}")


class HandWritten:
    """NumPy with preallocated results, as one who knows NumPy well writes it."""

    name = "NumPy by hand"

    def __init__(self):
        random = np.random.default_rng(2)
        self.x, self.labels = data()
        self.batches = Batches()
        shapes = (HIDDEN, INPUTS), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)
        self.parameters = [random.uniform(-0.1, 0.1, s).astype(np.float32) for s in shapes]
        self.gradients = [np.zeros_like(one) for one in self.parameters]
        self.velocities = [np.zeros_like(one) for one in self.parameters]
        self.scratch = [np.zeros_like(one) for one in self.parameters]
        self.batch = np.zeros((BATCH, INPUTS), np.float32)
        self.h = np.zeros((BATCH, HIDDEN), np.float32)
        self.dh, self.slope = np.zeros_like(self.h), np.zeros_like(self.h)
        self.p = np.zeros((BATCH, CLASSES), np.float32)
        self.rows = np.arange(BATCH)
        self.loss = self.wrong = 0.0

    def steps(self, count):
        w1, b1, w2, b2 = self.parameters
        g1, gb1, g2, gb2 = self.gradients
        for _ in range(count):
            places = self.batches()
            x = np.take(self.x, places, 0, self.batch, "clip")
            labels = self.labels[places]
            h = np.matmul(x, w1.T, self.h)
            h += b1
            np.tanh(h, h)
            p = np.matmul(h, w2.T, self.p)
            p += b2
            p -= p.max(1, keepdims=True)
            np.exp(p, p)
            p /= p.sum(1, keepdims=True)
            self.loss += -np.log(p[self.rows, labels]).sum()
            self.wrong += np.count_nonzero(p.argmax(1) != labels)
            p[self.rows, labels] -= 1
            p *= 1 / BATCH
            dh = np.matmul(p, w2, self.dh)
            np.multiply(h, h, self.slope)
            np.subtract(1, self.slope, self.slope)
            dh *= self.slope
            np.matmul(p.T, h, g2)
            np.sum(p, 0, out=gb2)
            np.matmul(dh.T, x, g1)
            np.sum(dh, 0, out=gb1)
            for w, g, v, scratch in zip(
                self.parameters, self.gradients, self.velocities, self.scratch, strict=True
            ):
                v *= MOMENT
                np.multiply(g, RATE, scratch)
                v -= scratch
                w += v


class Torch:
    """PyTorch, eager or compiled."""

    def __init__(self, *, is_compiled=False):
        import torch

        self.name = "torch.compile" if is_compiled else "torch eager"
        self.torch = torch
        torch.manual_seed(0)
        x, labels = data()
        self.x, self.labels = torch.from_numpy(x), torch.from_numpy(labels).long()
        net = torch.nn.Sequential(
            torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES)
        )
        self.optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENT)
        self.criterion = torch.nn.CrossEntropyLoss()
        self.batches = Batches()
        self.loss_of = lambda x, labels: self.criterion(net(x), labels)
        if is_compiled:
            self.loss_of = torch.compile(self.loss_of)

    def steps(self, count):
        for _ in range(count):
            places = self.torch.from_numpy(self.batches())
            loss = self.loss_of(self.x[places], self.labels[places])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class ScikitLearn:
    """MLPClassifier.partial_fit."""

    name = "scikit-learn"

    def __init__(self):
        from sklearn.neural_network import MLPClassifier

        self.x, self.labels = data()
        self.batches = Batches()
        self.net = MLPClassifier(
            (HIDDEN,), activation="tanh", solver="sgd", batch_size=BATCH,
            learning_rate_init=RATE, momentum=MOMENT, nesterovs_momentum=False, alpha=0.0,
        )  # fmt: skip

    def steps(self, count):
        for _ in range(count):
            places = self.batches()
            self.net.partial_fit(self.x[places], self.labels[places], classes=range(CLASSES))


class Tinygrad:
    """tinygrad with its compiled step (TinyJit), on the device that DEV names."""

    name = "tinygrad"

    def __init__(self):
        from tinygrad import Context, Tensor, TinyJit, nn

        Tensor.manual_seed(0)
        self.tensor = Tensor
        self.x, self.labels = data()
        self.batches = Batches()
        first, second = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        optimizer = nn.optim.SGD(nn.state.get_parameters([first, second]), lr=RATE, momentum=MOMENT)

        @TinyJit
        def step(x, labels):
            with Context(TRAINING=1):
                optimizer.zero_grad()
                loss = second(first(x).tanh()).sparse_categorical_crossentropy(labels).backward()
                return loss.realize(*optimizer.schedule_step())

        self.step = step

    def steps(self, count):
        for _ in range(count):
            places = self.batches()
            loss = self.step(
                self.tensor(self.x[places]).realize(), self.tensor(self.labels[places]).realize()
            )
        loss.item()


def main():
    """Answer each count on the standard input with the seconds that so many steps take."""
    contestant = Tinygrad()
    contestant.steps(5)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        contestant.steps(int(line))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
