"""A detector trained only on real people detects drawn faces."""

from pathlib import Path

import numpy as np
import pytest

from model.face.face_prompts import EXPRESSIONS, POSES
from pipelines.data.synthetic.draw import render
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene


@pytest.mark.realdata
def test_a_real_detector_locates_drawn_faces(shared: Path) -> None:
    from insightface.app import FaceAnalysis

    root = str(shared / "weights" / "insightface")
    app = FaceAnalysis(name="buffalo_real_mini", root=root, allowed_modules=["detection"])
    app.prepare(ctx_id=-1, det_size=(256, 256))
    rng = np.random.default_rng(0)
    found = 0
    for index in range(20):
        scene = Scene.sample(rng, EXPRESSIONS[index % 7], POSES[1 + index % 3])
        picture = render(Person.sample("dataset", 0, index), scene, 256)
        faces = app.get(np.ascontiguousarray(picture.image[..., ::-1]))
        if faces:
            found += float(np.linalg.norm(faces[0].kps - picture.keypoints, axis=1).mean()) < 0.06 * 256
    assert found >= 15
