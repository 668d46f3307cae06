"""What kubectl and an API server do with an Indexed Job, on this machine: pods are processes.

``kubectl_here.py FOLDER WORDS…`` takes the words that kubectl is given; FOLDER keeps the objects.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path


class Cluster:
    """Secrets and jobs in files of a folder, and the processes of their pods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def apply(self, text: str) -> None:
        for document in text.split("---\n"):
            one = json.loads(document)
            place = self.folder / one["metadata"]["name"]
            place.mkdir(mode=0o700, exist_ok=True)
            if one["kind"] == "Secret":
                for name, data in one["data"].items():
                    with os.fdopen(
                        os.open(place / name, os.O_CREAT | os.O_WRONLY, 0o600), "wb"
                    ) as f:
                        f.write(base64.b64decode(data))
            else:
                (place / "job.json").write_text(json.dumps(one))
                self.reconcile(place)

    def patch(self, name: str, patch: dict) -> None:
        """Change a job as the API server lets one: an elastic one keeps both numbers equal."""
        place = self.folder / name
        job = json.loads((place / "job.json").read_text())
        change = patch["spec"]
        if change["completions"] != job["spec"]["completions"] and (
            change["completions"] != change["parallelism"]
            or job["spec"]["completionMode"] != "Indexed"
        ):
            sys.exit("The Job is invalid: spec.completions: Invalid value: field is immutable")
        job["spec"].update(change)
        (place / "job.json").write_text(json.dumps(job))
        self.reconcile(place)

    def reconcile(self, place: Path) -> None:
        """Have a pod for each index below the job's completions, and no others."""
        spec = json.loads((place / "job.json").read_text())["spec"]
        container = spec["template"]["spec"]["containers"][0]
        mounted = container["volumeMounts"][0]["mountPath"]
        for index in range(spec["completions"]):
            if not (place / f"{index}.pid").exists():
                words = [
                    word.replace(mounted, str(place)).replace("$(POD)", f"{place.name}-{index}")
                    for word in container["command"]
                ]
                pod = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=(place / f"{index}.log").open("a"), start_new_session=True,
                )  # fmt: skip
                (place / f"{index}.pid").write_text(str(pod.pid))
        for path in place.glob("*.pid"):
            if int(path.stem) >= spec["completions"]:
                self.end(path)

    def end(self, path: Path) -> None:
        """Tell a pod to leave, as the kubelet does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)
        path.unlink()

    def delete(self, name: str) -> None:
        for path in (self.folder / name).glob("*"):
            if path.suffix == ".pid":
                self.end(path)
            else:
                path.unlink()


def main(folder: str, *words: str) -> None:
    cluster = Cluster(Path(folder))
    match words:
        case ["apply", "-f", "-"]:
            cluster.apply(sys.stdin.read())
        case ["patch", "job", name, "-p", patch]:
            cluster.patch(name, json.loads(patch))
        case ["get", "pods", *_]:
            pass  # none of them waits
        case ["delete", "job,secret", name, *_]:
            cluster.delete(name)
        case _:
            sys.exit(f"error: unknown command {words[0]!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
