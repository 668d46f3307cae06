"""Slaves as an Indexed Job of Kubernetes; the offer is a Secret that the pods mount.

The manifests are made from typed templates, are printed by ``--dry-run``, and go to the cluster
through ``kubectl``, which knows how to log in wherever the user can.
"""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from veloflow.errors import EngineError, OptionError
from veloflow.runtime.launchers.base import Launcher, Reach, last_line
from veloflow.runtime.launchers.task import command

if TYPE_CHECKING:
    from veloflow.runtime.offer import Offer

__all__ = ["KubernetesLauncher", "KubernetesOptions", "manifests"]

_ANSWER = 60.0
#: a slave has so many seconds to hand its work back when its node is taken away
_GRACE = 30
_FOLDER = "/run/veloflow"


class KubernetesOptions(msgspec.Struct, frozen=True):
    """Options of ``--on kubernetes``.

    Attributes:
        image: that has Python and veloflow; see the Containerfile of the repository.
        namespace: by default the one of kubectl's context.
        host: by which name or address pods reach this machine.
        cpu, memory: that each pod asks for.
        service_account: by default the namespace's.
        python: the interpreter in the image.
        user: the number of the user that slaves run as, who needs no rights.
    """

    image: str = ""
    namespace: str = ""
    host: str = ""
    cpu: str = "1"
    memory: str = "1Gi"
    service_account: str = ""
    python: str = "python3"
    user: int = 10001


class KubernetesLauncher(Launcher[KubernetesOptions]):
    """Applies a Secret and a Job, watches what they say, and deletes both."""

    name: ClassVar[str] = "kubernetes"
    Options: ClassVar[type[msgspec.Struct]] = KubernetesOptions

    def connect(self) -> None:
        """Check the options.

        Raises:
            OptionError: there is no image or no host.
        """
        if not self.options.image:
            raise OptionError("--on kubernetes needs an image: --engine-option image=NAME")
        if not self.options.host:
            raise OptionError(
                "--on kubernetes needs to know how pods reach this machine: "
                "--engine-option host=NAME"
            )
        self._name = f"veloflow-{secrets.token_hex(4)}"
        self._told: set[str] = set()
        self._asked = 0.0
        self._has_applied = False

    def reach(self) -> Reach:
        """Return what the user says: a cluster's network cannot be guessed."""
        return Reach("0.0.0.0", self.options.host)

    def start(self, count: int, offer: Offer) -> None:
        """Apply the manifests.

        Raises:
            EngineError: the cluster refuses them.
            OptionError: it has to be told how many.
        """
        if not count:
            raise OptionError("--on kubernetes has to be told how many: --slaves N")
        self._has_applied = True
        both = manifests(self.options, self._name, count, offer.encode())
        self._kubectl("apply", "-f", "-", text=_text(both))

    def resize(self, count: int) -> None:
        """Change the job's parallelism, which an elastic Indexed Job may while it runs."""
        patch = {"spec": {"parallelism": count, "completions": count}}
        self._kubectl("patch", "job", self._name, "-p", msgspec.json.encode(patch).decode())

    def tend(self) -> Iterable[str]:
        """Say what keeps pods from starting."""
        now = time.monotonic()
        if not self._has_applied or now - self._asked < 5:
            return
        self._asked = now
        template = (
            "{range .items[*]}{.metadata.name} {.status.phase} "
            "{.status.containerStatuses[0].state.waiting.reason} "
            '{.status.conditions[?(@.status=="False")].message}{"\\n"}{end}'
        )
        chosen = ["-l", f"job-name={self._name}", "-o", f"jsonpath={template}"]
        for line in self._kubectl("get", "pods", *chosen).splitlines():
            words = line.split(maxsplit=2)
            if len(words) == 3 and words[1] == "Pending" and words[2] not in self._told:
                self._told.add(words[2])
                yield f"kubernetes: {words[0]} waits: {words[2]}"

    def stop(self, grace: float) -> None:
        """Delete the job, whose pods are told to leave, and the secret."""
        if self._has_applied:
            self._kubectl(
                "delete", "job,secret", self._name, "--ignore-not-found", "--wait=false",
                "--cascade=background",
            )  # fmt: skip

    def describe(self, count: int) -> str:
        """Return the manifests, the secret's content hidden."""
        self.connect()
        return _text(manifests(self.options, self._name, count or 1, b"(made for each run)"))

    def _kubectl(self, *words: str, text: str = "") -> str:
        if shutil.which("kubectl") is None:
            raise EngineError("--on kubernetes finds no kubectl; install it, or use --dry-run")
        place = ["--namespace", self.options.namespace] if self.options.namespace else []
        try:
            done = subprocess.run(
                ["kubectl", *place, *words], input=text, capture_output=True, text=True,
                timeout=_ANSWER,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EngineError(f"kubectl did not answer for {_ANSWER:g} s") from None
        if done.returncode:
            raise EngineError(f"kubectl: {last_line(done.stderr) or done.returncode}")
        return done.stdout


def manifests(
    options: KubernetesOptions, name: str, count: int, offer: bytes
) -> list[dict[str, Any]]:
    """Return the Secret with the offer and the Job of ``count`` slaves, as JSON values.

    A pod that fails by itself is tried again, each index for itself; one that is disrupted
    (preempted, drained, its node lost) does not count as a failure at all.
    """
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise OptionError(f"{name!r} is no name for objects of Kubernetes")
    meta: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": "veloflow"}}
    if options.namespace:
        meta["namespace"] = options.namespace
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "type": "Opaque",
        "data": {"offer.json": base64.b64encode(offer).decode()},
    }
    words = command("--offer", f"{_FOLDER}/offer.json", "--name", "$(POD)", python=options.python)
    container = {
        "name": "slave",
        "image": options.image,
        "command": words,
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": one, "value": "1"} for one in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")),
        ],
        "resources": {"requests": {"cpu": options.cpu, "memory": options.memory}},
        "volumeMounts": [{"name": "offer", "mountPath": _FOLDER, "readOnly": True}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.user,
            "runAsGroup": options.user,
            "fsGroup": options.user,  # so that this user can read the secret, and no other
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "offer", "secret": {"secretName": name, "defaultMode": 0o400}}],
    }
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": count,
            "backoffLimitPerIndex": 100,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    }
                ]
            },
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": meta["labels"]}, "spec": pod},
        },
    }
    return [secret, job]


def _text(both: list[dict[str, Any]]) -> str:
    """Return manifests as documents that kubectl reads: JSON is YAML."""
    return "---\n".join(
        msgspec.json.format(msgspec.json.encode(one)).decode() + "\n" for one in both
    )
