"""Sample people and scenes from their random streams."""

from dataclasses import fields

import numpy as np

from model.face.face_prompts import EXPRESSIONS, POSE_YAW, POSES, parse
from model.face.ledger import hash_of_person
from model.foundation.manifest import read
from pipelines.data.preprocessing.partition import split_of
from pipelines.data.synthetic.dataset import identity_name, person_scenes
from pipelines.data.synthetic.person import HAIR_STYLES, NAMESPACES, Person
from pipelines.data.synthetic.scene import COLOURS, Scene


def test_a_person_is_a_function_of_namespace_seed_and_index() -> None:
    assert Person.sample("dataset", 3, 7) == Person.sample("dataset", 3, 7)
    others = {
        Person.sample(*key) for key in (("dataset", 3, 7), ("dataset", 3, 8), ("dataset", 4, 7), ("foundation", 3, 7))
    }
    assert len(others) == 4


def test_namespaces_never_share_a_person_or_a_name() -> None:
    people: dict[str, set[tuple[float, ...]]] = {}
    names: dict[str, set[str]] = {}
    for namespace in NAMESPACES:
        sampled = [Person.sample(namespace, 0, index) for index in range(200)]
        people[namespace] = {
            tuple(value for value in vars(person).values() if isinstance(value, float)) for person in sampled
        }
        names[namespace] = {identity_name(index, namespace) for index in range(2000)}
    for namespace in NAMESPACES:
        assert len(people[namespace]) == 200
        for other in set(NAMESPACES) - {namespace}:
            assert not people[namespace] & people[other]
            assert not names[namespace] & names[other]


def test_shipped_networks_have_seen_nobody_of_the_demo_the_page_and_the_tests() -> None:
    ledgers = {
        name: {role: set(hashes.split()) for role, hashes in roles.items()} for name, roles in read()["seen"].items()
    }
    assert {name: {role: len(seen) for role, seen in roles.items()} for name, roles in ledgers.items()} == {
        "foundation": {"train": 644, "val": 56},
        "adapter": {"train": 1655, "val": 63},
    }
    known = {namespace: {hash_of_person(identity_name(i, namespace)) for i in range(1800)} for namespace in NAMESPACES}
    for name, roles in ledgers.items():
        whose = {"foundation": "foundation", "adapter": "dataset"}[name]
        seen = roles["train"] | roles["val"]
        assert len(seen) == len(roles["train"]) + len(roles["val"])
        assert seen <= known[whose]
        assert not [namespace for namespace in NAMESPACES if namespace != whose and seen & known[namespace]]
    # Of showcase, those that nobody saw are held out.
    held_out = {
        hash_of_person(name)
        for name in (identity_name(index, "dataset") for index in range(1800))
        if split_of(name, 0.05, 0.03) == "test"
    }
    assert not held_out & (ledgers["adapter"]["train"] | ledgers["adapter"]["val"])


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
