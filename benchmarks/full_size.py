"""The whole line on sixty photographs, at the size of Stable Diffusion 1.5: real small networks, a random base.

    python benchmarks/full_size.py run --work DIR [--shared ../shared] [--side 256]
    python benchmarks/full_size.py run --work DIR --small    # every command in minutes, with a tiny base
    python benchmarks/full_size.py table DIR

Clones the last commit into DIR, makes a base and an image encoder of full size with random weights, with TAESD as
autoencoder, and runs the profile `sd15` with the networks of `shared`/weights for analysis and judges: ingest to
`register --accept-refusal`, few steps. The pictures are noise; what is measured is whether the line reaches its end, in
which time and memory, and whether what it says of the photos is true. A run that was stopped continues; `table` prints
the figures in Markdown.
"""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.core.params import load_params, read_tree

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
PROJECT = Path(__file__).resolve().parents[1]
PEOPLE, EACH = 10, 6
# TAESD is the autoencoder: through a random one no face survives, so that nothing could be judged.
FULL_BASE = """from pathlib import Path
from benchmarks.full_size_models import save_full_size
save_full_size(Path("weights/random"), side={side}, autoencoder=Path("weights/taesd"))"""
SMALL_BASE = """from pathlib import Path
from benchmarks.full_size_models import use_autoencoder
from model.foundation.random_models import save_random_models
use_autoencoder(save_random_models(Path("weights/random"), sample_size={side} // 8).pipeline, Path("weights/taesd"))"""
CHAIN = ("validate", "preprocess", "validate_processed", "train_anchoring", "train_imr", "evaluate")
FEW: dict[str, Any] = {
    "base": {"pipeline": "weights/random/sd", "image_encoder": "weights/random/image_encoder", "domain": "photograph"},
    "ingest": {"domain": "photograph"},
    "validate": {"min_photos": PEOPLE * EACH, "min_side": 128},
    "preprocess": {"min_face_side": 48, "test_share": 0.4, "val_share": 0.1, "buckets": 2, "slice_photos": 30},
    "validate_processed": {"min_identities": PEOPLE, "min_test_identities": 2},
    "train_anchoring": {"steps": 2, "batch_size": 1, "warmup_steps": 0, "cache_batch": 1, "probe_photos": 1},
    "train_imr": {"steps": 2, "helpers": 2, "warmup_steps": 0, "cache_batch": 1, "ldc_targets": 1},
    "evaluate": {
        # The judges are measured on the photos of these people: half of them have an expression, and it takes twelve.
        "people": 5,
        "steps": 2,
        "prompts": 1,
        "seeds": 1,
        "variant_cells": 2,
        "diversity_seeds": 2,
        "several_people": {"two": 1, "three": 0, "four": 0},
    }
    | {"batch_size": 1, "bootstrap": 100, "boost_steps": 1, "sweeps": False},
}
# What the profile `photographs` names small published networks for.
SMALL = ("insightface_name", "landmarker", "expression", "captions")


@app.command()
def run(
    *,
    work: Annotated[Path, typer.Option(help="Folder to work in.")],
    shared: Annotated[Path, typer.Option(help="Folder with photos and weights.")] = PROJECT.parent / "shared",
    side: Annotated[int, typer.Option(help="Side of the pictures in pixels, a multiple of 64.")] = 256,
    workers: Annotated[int, typer.Option(help="Processes of preprocessing.", min=1)] = 2,
    small: Annotated[bool, typer.Option(help="A base of a few thousand parameters, to try the line itself.")] = False,
) -> None:
    """Run the line; write stages.json, labels.json and table.md into `work`."""
    root = work / "checkout"
    if not root.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "-q", str(PROJECT), str(root)], check=True)
        subprocess.run(["git", "-C", str(root), "config", "user.name", "benchmark"], check=True)
        subprocess.run(["git", "-C", str(root), "config", "user.email", "benchmark@localhost"], check=True)
    copy_photos(shared / "photos", work / "photos")
    stages = Stages(work, root)
    changes = [f"{key}={json.dumps(value)}" for key, value in settings(side, workers, small=small).items()]
    stages.call("configure", "--profile", "sd15", *(word for change in changes for word in ("--set", change)))
    known = ("--from", str((shared / "weights").resolve()))
    stages.call("weights fetch", *known, "--accept", "InsightFace-non-commercial")
    stages.call("weights fetch taesd", *known)
    stages.run("base", [sys.executable, "-c", (SMALL_BASE if small else FULL_BASE).format(side=side)])
    stages.call("ingest", str((work / "photos").resolve()), "--layout", "identity-folders", "--licence", "research")
    for name in CHAIN:
        stages.call(f"repro {name}")
    registration = stages.call("register", "--accept-refusal")
    (work / "registration.json").write_text(registration.splitlines()[-1] + "\n", encoding="utf-8")
    (work / "labels.json").write_text(json.dumps(labels(root), indent=1) + "\n", encoding="utf-8")
    (work / "table.md").write_text(table_of(work), encoding="utf-8")
    print((work / "table.md").read_text(encoding="utf-8"))


@app.command()
def table(work: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Print the figures of a run."""
    print(table_of(work))


class Stages:
    """Run commands in a checkout; keep minutes, processor minutes and peak memory of each in stages.json."""

    def __init__(self, work: Path, root: Path) -> None:
        self._file, self._root = work / "stages.json", root
        self._done = json.loads(self._file.read_bytes()) if self._file.is_file() else []

    def call(self, command: str, *arguments: str) -> str:
        """Run a command of `dynamicid`, unless an earlier call has; return what it printed to stdout."""
        return self.run(command, [sys.executable, "-m", "pipelines.cli", *command.split(), *arguments])

    def run(self, name: str, command: list[str]) -> str:
        """Run `command`, unless an earlier call has; end with its exit code where that is not 0."""
        for one in self._done:
            if one["stage"] == name:
                return str(one["stdout"])
        print(f"{name} …", file=sys.stderr, flush=True)
        begun = time.time()
        process = subprocess.Popen(command, cwd=self._root, stdout=subprocess.PIPE, text=True)
        used = UseOfTree(process.pid)
        stdout = process.communicate()[0]
        used.stop()
        if process.returncode:
            raise typer.Exit(process.returncode)
        minutes = {"minutes": (time.time() - begun) / 60, "cpu_minutes": sum(used.seconds.values()) / 60}
        self._done.append({"stage": name, **minutes, "gigabytes": used.peak / 1e9, "stdout": stdout[-20_000:]})
        self._file.write_text(json.dumps(self._done, indent=1) + "\n", encoding="utf-8")
        return stdout


class UseOfTree(threading.Thread):
    """Sample a process and its descendants twice a second until `stop`.

    `peak`: the largest sum of their resident sets in bytes, shared pages counted for each process. `seconds`: processor
    time of each process by id; what one works after its last sample is missing.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak, self.seconds = 0, dict[int, float]()
        self._process, self._ended = psutil.Process(pid), threading.Event()
        self.start()

    def run(self) -> None:
        """Sample."""
        while not self._ended.wait(0.5):
            resident = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [self._process, *self._process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        self.seconds[process.pid] = times.user + times.system
                        resident += process.memory_info().rss
            self.peak = max(self.peak, resident)

    def stop(self) -> None:
        """End sampling."""
        self._ended.set()
        self.join()


def settings(side: int, workers: int, *, small: bool = False) -> dict[str, Any]:
    """Return the changes of the profile `sd15`: small networks for photographs, few steps, pictures of this side.

    With a `small` base, a LoRA that fits its narrowest layers.
    """
    photographs = read_tree(PROJECT / "profiles" / "photographs.yaml")
    found = {f"preprocess.{name}": photographs["preprocess"][name] for name in SMALL}
    judges = photographs["evaluate"]["judges"]
    found |= {f"evaluate.judges.{name}": judges[name] for name in ("recogniser", "expression", "yaw", "pose")}
    found |= {"evaluate.judges.clip": None, "evaluate.judges.detector.path": "weights/detection/yunet_n_640_640.onnx"}
    found |= {f"{section}.{key}": value for section, values in FEW.items() for key, value in values.items()}
    found |= {"train_anchoring.sizes.lora_rank": 4} if small else {}
    return found | {
        "base.resolution": side,
        "preprocess.resolution": side,
        "preprocess.master": f"local[{workers}]",
    }


def copy_photos(photos: Path, target: Path) -> None:
    """Copy the first photos of the first people who have enough of them, a folder each."""
    with (photos / "MANIFEST.csv").open(encoding="utf-8", newline="") as file:
        of_person: dict[str, list[str]] = defaultdict(list)
        for row in csv.DictReader(file):
            if row["identity"]:
                of_person[row["identity"]].append(row["file"])
    chosen = [person for person, files in of_person.items() if len(files) >= EACH][:PEOPLE]
    for person in chosen:
        for name in of_person[person][:EACH]:
            (target / person).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photos / name, target / person / Path(name).name)


def labels(root: Path) -> dict[str, Any]:
    """Return what the processed rows say of expressions and clothes, and how often a second network agrees."""
    import cv2
    import numpy as np

    from model.face.face_prompts import EXPRESSIONS
    from pipelines.core.row_schemas import PROCESSED_SCHEMA, read_rows
    from pipelines.data.faces.face_networks import Classifier
    from pipelines.evaluation.prompts import load_prompts

    columns = ["status", "reason", "image", "bbox", "keypoints", "expression", "pose", "prompt", "face_prompt", "split"]
    rows = read_rows(root / "data" / "processed", PROCESSED_SCHEMA, columns).to_pylist()
    accepted = [row for row in rows if row["status"] == "ok"]
    decoded = [cv2.imdecode(np.frombuffer(row["image"], np.uint8), cv2.IMREAD_COLOR) for row in accepted]
    images = [np.asarray(image)[:, :, ::-1] for image in decoded]
    boxes, points = ([np.array(row[name]) for row in accepted] for name in ("bbox", "keypoints"))
    networks = load_params(root / "params.yaml").evaluate.judges.expression
    assert networks, "the profile names no judge of expressions"
    network = networks[0]
    second = Classifier(network.model_copy(update={"path": str(root / network.path)}), "second")
    read = second.probabilities(images, boxes, [one.reshape(5, 2) for one in points]).argmax(1)
    named = [number for number, row in enumerate(accepted) if row["expression"]]
    right = sum(EXPRESSIONS[read[number]] == accepted[number]["expression"] for number in named)
    garments = {prompt.template.split("} ")[1].split(",")[0] for prompt in load_prompts().single}
    texts = [f"{row['prompt'] or ''} {row['face_prompt'] or ''}" for row in accepted]
    return {
        "photos": len(rows),
        "accepted": len(accepted),
        "rejected": dict(Counter(row["reason"] for row in rows if row["status"] != "ok")),
        "splits": dict(Counter(row["split"] for row in accepted)),
        "named": len(named),
        "named_as": dict(Counter(row["expression"] or "open" for row in accepted)),
        "agree": right,
        "pose_open": sum(row["pose"] is None for row in accepted),
        "prompt_open": sum(not row["prompt"] for row in accepted),
        "clothes": sum(any(word in text for word in garments) for text in texts),
    }


def table_of(work: Path) -> str:
    """Return minutes and memory of each stage, what is stated of the photos, and every failed gate, in Markdown."""
    done = json.loads((work / "stages.json").read_bytes())
    lines = ["| stage | minutes | processor minutes | peak memory, GB |", "|---|---|---|---|"]
    lines += [f"| {o['stage']} | {o['minutes']:.1f} | {o['cpu_minutes']:.1f} | {o['gigabytes']:.1f} |" for o in done]
    sums = [sum(one[key] for one in done) for key in ("minutes", "cpu_minutes")]
    lines += [f"| all | {sums[0]:.1f} | {sums[1]:.1f} | {max(one['gigabytes'] for one in done):.1f} |", ""]
    if (file := work / "labels.json").is_file():
        counts = json.loads(file.read_bytes())
        accepted, named = counts["accepted"], counts["named"]
        lines += ["| photos | |", "|---|---|", f"| accepted | {accepted} of {counts['photos']} |"]
        lines += [f"| expression named | {named / accepted:.2f} ({words(counts['named_as'])}) |"]
        lines += [f"| of these, the second network agrees | {counts['agree'] / max(1, named):.2f} |"]
        lines += [f"| pose open | {counts['pose_open']} |", f"| prompt open | {counts['prompt_open']} |"]
        lines += [f"| clothes named | {counts['clothes']} |", ""]
    if (file := work / "registration.json").is_file():
        found = json.loads(file.read_bytes())
        lines += [f"{found['model_name']} v{found['version']}: {found['decision']}", ""]
        lines += [f"- {gate}" for gate in found["failed_gates"]]
    return "\n".join(lines) + "\n"


def words(counts: dict[str, int]) -> str:
    """Return counts in words, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))


if __name__ == "__main__":
    app()
