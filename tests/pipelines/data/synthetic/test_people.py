"""Sample people and scenes from their random streams."""

from dataclasses import fields

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES, parse
from pipelines.data.synthetic.dataset import person_scenes
from pipelines.data.synthetic.person import HAIR_STYLES, Person
from pipelines.data.synthetic.scene import COLOURS, Scene


def test_a_person_is_a_function_of_namespace_seed_and_index() -> None:
    assert Person.sample("dataset", 3, 7) == Person.sample("dataset", 3, 7)
    others = {
        Person.sample(*key) for key in (("dataset", 3, 7), ("dataset", 3, 8), ("dataset", 4, 7), ("foundation", 3, 7))
    }
    assert len(others) == 4


def test_namespaces_never_share_a_person() -> None:
    def shapes(namespace: str) -> set[tuple[float, ...]]:
        people = (Person.sample(namespace, 0, index) for index in range(200))
        return {(person.head_width, person.eye_size, person.nose_length) for person in people}

    assert len(shapes("dataset")) == 200
    assert not shapes("dataset") & shapes("foundation")


def test_at_least_24_parameters_vary_independently() -> None:
    people = [Person.sample("dataset", 0, index) for index in range(300)]
    numbers = {}
    for field in fields(Person):
        values = [getattr(person, field.name) for person in people]
        if field.name not in ("key", "texture_seed") and isinstance(values[0], int | float):
            numbers[field.name] = np.array(values, float)
    varying = {name: values for name, values in numbers.items() if values.std() > 0}
    # Within one presentation, parameters are hardly correlated.
    women = np.array([person.presentation == "feminine" for person in people])
    table = np.corrcoef(np.stack([values[women] for values in varying.values()]))
    independent = (np.abs(table) - np.eye(len(table)) < 0.5).all(axis=1)
    assert independent.sum() >= 24
    assert {person.hair_style for person in people} == set(HAIR_STYLES)


def test_a_person_has_every_expression_in_every_pose() -> None:
    scenes = person_scenes(0, 5)
    assert len(scenes) == 35
    assert {(scene.expression, scene.pose) for scene in scenes} == {(e, p) for e in EXPRESSIONS for p in POSES}
    assert scenes == person_scenes(0, 5)
    assert all(abs(scene.yaw - POSE_YAW[scene.pose]) <= 7 for scene in scenes)
    assert len({scene.yaw for scene in scenes}) == 35
    assert len({scene.shirt_colour for scene in scenes}) >= 5


def test_prompts_describe_all_but_the_face() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = Scene.sample(rng, "sad", "half_left", "woman")
        assert scene.shirt_colour in scene.prompt
        assert scene.shirt_style in scene.prompt
        assert scene.place or scene.background_colour in scene.prompt
        assert parse(scene.prompt).expression is None
        assert parse(scene.prompt).pose is None
        found = parse(scene.face_prompt)
        assert (found.expression, found.pose) == ("sad", "half_left")
        assert scene.shirt_colour in COLOURS
        assert scene.place or scene.background_colour != scene.shirt_colour
