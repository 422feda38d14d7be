"""Measure an evaluation of many small pictures: memory, kills, and two processes against one.

    python benchmarks/evaluation.py                                  # 500 and 2,000 pictures, minutes
    python benchmarks/evaluation.py --pictures 25380 --kills 10      # hours on a CPU

Held-out people are drawn (64 px), the networks are those that ship, with two denoising steps and one thread a process.
Peak memory is that of the evaluation's process, as the kernel counts it. Then the first evaluation is killed at so many
random moments, with more pictures on disk each time, and its metrics and report are compared with those of one that was
not.
The speed is that of batches on disk, without loading networks. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import print_report, rounded

_PROJECT = Path(__file__).resolve().parents[1]
# Pictures of one person: the model's eleven and two more, three variants of five, one of two.
_EACH = 30


@dataclass(frozen=True)
class Run:
    """An evaluation in its folder: seconds, peak memory in bytes of its process, and pictures a second on disk."""

    folder: Path
    seconds: float
    peak: int
    rate: float

    @property
    def result(self) -> tuple[bytes, bytes]:
        """The bytes of metrics and report."""
        return (self.folder / "metrics.json").read_bytes(), (self.folder / "index.html").read_bytes()


def write_people(people: int, file: Path) -> None:
    """Write processed rows of `people` drawn people whom no network has seen, all held out."""
    import cv2
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.core.row_schemas import PROCESSED_SCHEMA
    from pipelines.data.synthetic.dataset import person_scenes
    from pipelines.data.synthetic.draw import render
    from pipelines.data.synthetic.person import Person

    file.parent.mkdir()
    with pq.ParquetWriter(file, PROCESSED_SCHEMA) as writer:
        for index in range(people):
            person, rows = Person.sample("benchmark", 0, index), []
            embedding = np.random.default_rng(index).normal(size=512).astype(np.float32)
            for number, scene in enumerate(person_scenes(0, index, "benchmark")):
                if scene.pose != "front" and scene.expression not in ("neutral", "happy"):
                    continue
                drawn = render(person, scene, 64)
                encoded = cv2.imencode(".png", drawn.image[..., ::-1])[1].tobytes()
                name = f"benchmark-{index:05d}"
                shown = {
                    "image": encoded,
                    "bbox": drawn.box.tolist(),
                    "keypoints": drawn.keypoints.reshape(-1).tolist(),
                }
                measured = {"landmarks": drawn.landmarks.reshape(-1).tolist(), "yaw": drawn.yaw, "pitch": drawn.pitch}
                labels = {"expression": scene.expression, "prompt": scene.prompt, "face_prompt": scene.face_prompt}
                rows.append(
                    {
                        **{"image_id": f"{index:05d}{number:03d}".ljust(64, "0"), "identity": name},
                        **{"file_name": f"{name}/{number}.png", "split": "test", "status": "ok", "roll": drawn.roll},
                        **{
                            "embedding": (embedding / np.linalg.norm(embedding)).tolist(),
                            "det_score": 0.9,
                            "n_faces": 1,
                        },
                        **{"sharpness": 100.0, **shown, **measured, **labels},
                    }
                )
            writer.write_table(pa.Table.from_pylist(rows, PROCESSED_SCHEMA))


def evaluate(folder: Path, people: int, *, processes: int = 1, kill_at: int | None = None, later: float = 0.0) -> Run:
    """Evaluate in `folder`, in which `processed` is; `kill_at`: end it so many seconds `later` than batch `kill_at`."""
    changes = {"people": people, "steps": 2, "layout_steps": 1, "boost_steps": 1, "processes": processes}
    changes["several_people.two"] = max(1, people // 12)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "evaluate",
        "--params",
        _PROJECT / "profiles" / "tiny.yaml",
    ]
    command += ["--processed", "processed", "--adapter", _PROJECT / "model" / "foundation" / "weights" / "adapter"]
    command += ["--metrics", "metrics.json", "--report", "index.html", "--set", "evaluate.shipped_adapter=null"]
    command += [f"--set=evaluate.{name}={value}" for name, value in changes.items()]
    environment = os.environ | {"PYTHONPATH": str(_PROJECT), "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    with (folder / "evaluate.log").open("ab") as log:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    while kill_at is not None and child.poll() is None and len(batches(folder)) < kill_at:
        time.sleep(0.01)
    if kill_at is not None:
        time.sleep(later)
        child.kill()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if kill_at is None and child.returncode:
        raise SystemExit(f"evaluate ended with {child.returncode}: {(folder / 'evaluate.log').read_text()[-2000:]}")
    times = sorted(file.stat().st_mtime for file in batches(folder))
    rate = (len(times) - processes) / max(times[-1] - times[processes - 1], 1e-9) if len(times) > processes else 0.0
    return Run(folder, time.perf_counter() - begun, used.ru_maxrss * 1024, rate)


def batches(folder: Path) -> list[Path]:
    """Return the batches on disk."""
    return sorted((folder / ".dynamicid" / "evaluation").glob("[!.]*.judged.npz"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[500, 2000], help="about so many pictures each")
    parser.add_argument("--kills", type=int, default=5, help="moments at which the first evaluation is killed")
    parser.add_argument("--seed", type=int, default=0, help="of those moments")
    parser.add_argument("--no-speed", action="store_true", help="leave out two processes against one")
    parser.add_argument("--work", type=Path, help="where the folders are made; default: the system's temporary folder")
    parser.add_argument("--out", type=Path, help="also write the JSON, indented, to this file")
    options = parser.parse_args()
    report: dict[str, Any] = {"evaluations": []}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        runs: list[tuple[int, Run]] = []
        for pictures in options.pictures:
            folder, people = Path(work) / str(pictures), max(2, round(pictures / _EACH))
            folder.mkdir()
            write_people(people, folder / "processed" / "part-00000.parquet")
            run = evaluate(folder, people)
            runs.append((people, run))
            drawn = json.loads(run.result[0])["settings"]["pictures"]
            report["evaluations"].append(
                {
                    "pictures": drawn,
                    "peak_mb": run.peak / 1e6,
                    "seconds": run.seconds,
                    "page_mb": len(run.result[1]) / 1e6,
                }
            )
            print(f"{drawn} pictures: peak {run.peak / 1e6:.0f} MB, {run.seconds:.0f} s", flush=True)
        people, whole = runs[0]
        count = len(batches(whole.folder))
        again = copy(whole.folder, "killed")
        random = Random(options.seed)
        for moment in sorted(random.uniform(0, count) for _ in range(options.kills)):
            # While networks are loaded, a batch is drawn or judged, or its file is written.
            evaluate(again, people, kill_at=int(moment), later=moment % 1 / max(whole.rate, 0.1))
        report["kills"], report["same_bytes"] = options.kills, evaluate(again, people).result == whole.result
        print(f"killed {options.kills} times: same metrics and report: {report['same_bytes']}", flush=True)
        if not options.no_speed:
            people, one = runs[-1]
            two = evaluate(copy(one.folder, "two"), people, processes=2)
            report["two_over_one"] = two.rate / one.rate
            report["same_of_two"] = two.result == one.result
            print(f"two processes: {two.rate / one.rate:.2f} times as fast, same: {report['same_of_two']}", flush=True)
    print_report(rounded(report), options.out)


def copy(folder: Path, name: str) -> Path:
    """Return a new folder with the people of another."""
    new = folder.parent / name
    shutil.copytree(folder / "processed", new / "processed")
    return new


if __name__ == "__main__":
    main()
