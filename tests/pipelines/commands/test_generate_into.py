"""`dynamicid generate --into`: a person in a given picture, and its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import Result

from tests.pipelines.commands.test_generate import SHIPPED, generate, refused


def test_a_person_is_painted_into_a_given_picture(project: Path, drawn_people: list[Path], tmp_path: Path) -> None:
    both = [np.asarray(Image.open(photo).convert("RGB").resize((160, 160))) for photo in drawn_people]
    given = np.concatenate(both, axis=1)
    Image.fromarray(given).save(tmp_path / "both.png")
    # Soft shapes and noise at every place, as in a photograph.
    rng = np.random.default_rng(0)
    soft = rng.uniform(60, 200, (6, 6, 3)).astype(np.uint8)
    photo = np.asarray(Image.fromarray(soft).resize((160, 160), Image.Resampling.BICUBIC)) + rng.normal(
        0, 3, (160, 160, 3)
    )
    Image.fromarray(np.clip(photo, 45, 240).astype(np.uint8)).save(tmp_path / "photo.png")

    def draw(name: str, into: str, *more: str) -> Result:
        chosen = ["--adapter", SHIPPED, "--params", project / "profiles" / "tiny.yaml", "--steps", "3"]
        people = ["--reference", drawn_people[0], "--into", f"{tmp_path}/{into}", "--prompt", "a photo of a person"]
        return generate(project, *people, *chosen, "--out", tmp_path / name, *more)

    def painted(name: str, *more: str) -> np.ndarray:
        done = draw(name, "both.png@0.1,0.6,0.7,0.9", *more)
        assert done.exit_code == 0, done.output
        return np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)

    first = painted("first.png")
    assert first.shape == given.shape
    changed = np.abs(first - given).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    # Only the box, up to a cell of the latents and the blur of resizing.
    assert 6 < rows.min() <= rows.max() < 122
    assert 182 < columns.min() <= columns.max() < 298
    assert changed[20:108, 196:284].mean() > 0.2
    assert np.array_equal(painted("again.png"), first)
    assert not np.array_equal(painted("happy.png", "--face-prompt", "happy"), first)

    for into, more, message in (
        ("both.png", (), "both.png: expected FILE@y0,x0,y1,x1, one picture and the box"),
        ("none.png@0,0,1,1", (), "none.png: no such file"),
        ("both.png@0,0,1", (), "is not a box y0,x0,y1,x1"),
        ("both.png@0,0,1,1.5", (), "box 0,0,1,1.5: expected y0,x0,y1,x1 between 0 and 1"),
        ("both.png@0,0,0.01,0.01", (), "the box is 3 x 2 pixels; expected at least 8 each way"),
        ("both.png@0,0,1,0.5", ("--width", "64"), "one person is painted into a given picture, in its own size"),
        ("both.png@0,0,1,0.5", ("--reference", str(drawn_people[1])), "one person is painted into a given picture"),
        ("both.png@0,0,1,0.5", ("--gate-map", "x.png"), "leave it out with --into"),
        ("photo.png@0,0,1,1", (), "photo.png: this seems to be a photograph"),
    ):
        assert message in refused(draw("x.png", into, *more)), into
