"""The page's chips, boxes and examples."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gradio.state_holder import SessionState
from PIL import Image

from model.face.face_prompts import EXPRESSIONS, POSES, parse
from model.face.target_motion import TargetMotion
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.serving.request import DrawRequest, Reference
from pipelines.webpage.box_pad import boxes_of, with_boxes, with_picture, with_shape
from pipelines.webpage.drawing import Renderer
from pipelines.webpage.examples import draw_examples
from pipelines.webpage.folder import page_folder
from pipelines.webpage.form import _filled, build_form, face_prompt, request_of
from pipelines.webpage.history import KeptPicture, with_pictures, write_sheet


def test_two_chips_give_a_valid_face_prompt() -> None:
    for expression in ("", *EXPRESSIONS):
        for pose in ("", *POSES):
            text = face_prompt(expression, pose)
            assert (parse(text).expression or "", parse(text).pose or "") == (expression, pose)


def test_boxes_belong_to_the_people_with_a_photo() -> None:
    left, right = [0, 0, 1, 0.5], [0, 0.5, 1, 1]
    assert boxes_of(with_boxes(()), [0, 1]) is None
    assert boxes_of(with_boxes((left, right)), [0, 1]) == [left, right]
    assert boxes_of(with_boxes((left, right)), [1]) == [right]
    with pytest.raises(UserError, match="person 3: no box"):
        boxes_of(with_boxes((left, right)), [0, 2])
    assert boxes_of("nonsense", [0]) is None


def test_boxes_stay_while_the_picture_below_them_changes(tmp_path: Path) -> None:
    value = with_boxes([[0, 0, 1, 0.5]])
    Image.new("RGB", (64, 32)).save(tmp_path / "wide.png")
    wide = with_picture(value, tmp_path / "wide.png")
    assert (wide["boxes"], wide["aspect"], wide["picture"][:15]) == ([[0, 0, 1, 0.5]], 2.0, "data:image/png;")
    assert with_shape(wide, 128, 64) == wide
    square = with_shape(wide, 0, 0)
    assert (square["boxes"], square["aspect"], square["picture"]) == ([[0, 0, 1, 0.5]], 1.0, "")
    assert with_shape("nonsense", 128, 64) == with_picture("nonsense", tmp_path / "wide.png") == "nonsense"


def test_the_pictures_of_a_visit_are_kept_newest_first_and_written_on_one_page(tmp_path: Path) -> None:
    def kept(number: int, prompt: str = "a <b>photo</b>") -> KeptPicture:
        file = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), (number, 0, 0)).save(file)
        return KeptPicture(file, "dynamicid, version 3", number, prompt, ("sad", ""), (64, 64))

    assert write_sheet([], tmp_path) is None
    visit = with_pictures([kept(1)], [kept(2)])
    assert [one.seed for one in visit] == [2, 1]
    assert visit[0].caption == "dynamicid, version 3 · seed 2 · sad"
    sheet = write_sheet(visit, tmp_path)
    assert sheet is not None
    page = sheet.read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png') == 2
    assert page.index("seed 2") < page.index("seed 1")
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    visit[0].file.unlink()
    assert [one.seed for one in with_pictures(visit, [])] == [1]
    assert len(with_pictures([kept(1)] * 30, [])) == 24


def test_more_photos_of_a_person_are_references_of_one(params: Params, tmp_path: Path) -> None:
    import gradio as gr

    examples = draw_examples(tmp_path)
    photos = examples[0].photos
    with gr.Blocks():
        form = build_form(params, params.evaluate, 2, takes_face_prompts=True, examples=examples)
    values = {part: part.value for part in form.inputs()} | {form.new_seed: False, form.prompt: "a photo"}
    values |= {form.people[1].photo: str(photos[0]), form.people[1].face: 2, form.people[1].more: [str(photos[1])] * 2}
    request = request_of(form, values, params)
    assert [[(one.name, face) for one, face in person] for person in request.people] == [
        [("photo 1 of person 2", 2), ("photo 2 of person 2", None), ("photo 3 of person 2", None)]
    ]
    one = request_of(form, values | {form.people[1].more: None}, params)
    assert one.references == (Reference("person 2", photos[0].read_bytes()),)
    with pytest.raises(UserError, match="person 2: 9 photos; at most 8"):
        request_of(form, values | {form.people[1].more: [str(photos[1])] * 8}, params)
    assert len(_filled(form, examples[1])) == len(form.faces()) + 2


def test_strength_yaw_and_a_driving_photo_are_those_of_the_form(params: Params, tmp_path: Path) -> None:
    import gradio as gr

    examples = draw_examples(tmp_path)
    photo, other = (str(file) for file in examples[0].photos)
    with gr.Blocks():
        form = build_form(params, params.evaluate, 2, takes_face_prompts=True, examples=examples)
    person = form.people[1]
    values = {part: part.value for part in form.inputs()} | {form.new_seed: False, form.prompt: "a photo"}
    values |= {person.photo: photo}
    plain = request_of(form, values, params)
    assert (plain.motions, plain.driving, plain.driving_faces) == ((), (), ())
    assert request_of(form, values | {person.driving_face: 2}, params) == plain, "of no photo"
    values |= {person.strength: 0.5, person.yaw: -20, person.driving: other, person.driving_face: 2}
    asked = request_of(form, values, params)
    assert asked.motions == (TargetMotion(strength=0.5, yaw=-20.0),)
    assert asked.drivers == [(Reference("driving photo of person 2", Path(other).read_bytes()), 2)]
    with pytest.raises(UserError, match="a driving photo and the face prompt 'sad'"):
        request_of(form, values | {person.expression: "sad"}, params)


def test_examples_are_drawn_people_and_the_same_every_time(tmp_path: Path) -> None:
    both, alone = draw_examples(tmp_path / "a")
    assert (len(alone.photos), len(both.photos)) == (1, 2)
    assert len(both.photos) == len(both.expressions) == len(both.poses) == 2
    again = draw_examples(tmp_path / "b")[0]
    assert [photo.read_bytes() for photo in both.photos] == [photo.read_bytes() for photo in again.photos]
    with Image.open(both.photos[0]) as photo:
        assert photo.size == (256, 256)


def test_an_example_is_there_after_gradio_has_deleted_old_files(tmp_path: Path) -> None:
    """Pressed once, it was deleted for everybody an hour later."""
    import gradio as gr
    from gradio.route_utils import delete_files_created_by_app

    with page_folder(tmp_path, 7860) as folder:
        examples = draw_examples(folder / "examples")
        with gr.Blocks() as page:
            photo = gr.Image(type="filepath")
            gr.Button().click(lambda: examples[0].photos[0], outputs=photo, api_name="press")
        (fn,) = page.fns.values()
        for _ in range(2):
            shown = asyncio.run(page.process_api(fn, [], SessionState(page)))["data"][0]["path"]
            assert Path(shown).read_bytes() == examples[0].photos[0].read_bytes()
            delete_files_created_by_app(page, age=-1)
            assert not Path(shown).exists()


def test_the_end_of_the_page_ends_a_drawing(tmp_path: Path, params: Params) -> None:
    """It would write into the folder that the page removes."""
    drawn: list[int] = []

    def draw(request: Any, *, gate_map: bool, on_step: Any) -> Any:
        drawn.append(1)
        threading.Thread(target=renderer.close).start()
        renderer._ending.wait()
        on_step(1, 2)

    renderer = Renderer(SimpleNamespace(draw=draw, has_gate=True), params, "a model", tmp_path)
    request = DrawRequest((Reference("photo", b""),), "a photo")
    for _ in range(2):
        with pytest.raises(UserError, match="the page is ending"):
            renderer.draw(request)
    assert (drawn, list(tmp_path.iterdir())) == ([1], [])
