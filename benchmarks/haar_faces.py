"""Measure the share of procedural faces that a detector of real faces finds: OpenCV's frontal Haar cascade.

OpenCV 5 has no cascades, so OpenCV 4.10 is installed into a temporary folder and run in a separate process. The last
line is JSON.

    python benchmarks/haar_faces.py --people 280
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

OPENCV = "opencv-python-headless==4.10.0.84"
DETECT = """
import json, sys
import cv2
import numpy as np
cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in np.load(sys.argv[1])]
print(json.dumps([len(cascade.detectMultiScale(image, 1.03, 3)) for image in grey]))
"""


def main(
    people: Annotated[int, typer.Option(help="How many people, one frontal photo each.", min=7)] = 280,
    size: Annotated[int, typer.Option(help="Side of the photos in pixels.", min=64)] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the people; the training set of the networks has 0.")] = 1,
) -> None:
    """Render frontal people in all expressions, detect their faces, and print the detected share."""
    import numpy as np
    from tqdm import tqdm

    from model.face.face_prompts import EXPRESSIONS, POSES
    from model.foundation.people import PhotoSpec
    from pipelines.data.synthetic.foundation_people import draw

    front = POSES[len(POSES) // 2]
    names = [EXPRESSIONS[number % len(EXPRESSIONS)] for number in range(people)]
    photos = [
        draw(PhotoSpec(seed, number, (number,), (name,), (front,), size)).image
        for number, name in enumerate(tqdm(names, desc="drawing", unit="photo"))
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / "opencv", Path(temporary) / "photos.npy"
        np.save(file, np.stack(photos))
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), OPENCV]
        subprocess.run(install, check=True, stdout=sys.stderr)
        env = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", DETECT, str(file)], check=True, env=env, stdout=subprocess.PIPE, text=True
        )
    found = np.array(json.loads(done.stdout)) > 0
    by_expression = {name: float(found[np.array(names) == name].mean()) for name in EXPRESSIONS}
    typer.echo(json.dumps({"people": people, "found": float(found.mean()), "by_expression": by_expression}))


if __name__ == "__main__":
    typer.run(main)
