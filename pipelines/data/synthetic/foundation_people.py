"""Draw the people that the foundation is trained on; none of them is in a dataset."""

from __future__ import annotations

import numpy as np

from model.foundation.people import Drawn, Order
from pipelines.data.synthetic.draw import Truth, render, render_group
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.scene import Scene

NAMESPACE = "foundation"


def draw(order: Order) -> Drawn:
    """Draw one picture of the order's one or two people; the same order gives the same picture."""
    rng = np.random.default_rng([order.seed, 2, len(order.people), *order.people, order.photo])
    members = []
    for number, expression, pose in zip(order.people, order.expressions, order.poses, strict=True):
        person = Person.sample(NAMESPACE, order.seed, number)
        noun = "woman" if person.presentation == "feminine" else "man"
        members.append((person, Scene.sample(rng, expression, pose, noun)))
    truths: list[Truth]
    if len(members) == 1:
        picture = render(*members[0], order.size)
        image, truths = picture.image, [picture]
    else:
        image, truths = render_group(members, order.size)
    return Drawn(
        image=image,
        landmarks=np.stack([truth.landmarks for truth in truths]),
        keypoints=np.stack([truth.keypoints for truth in truths]),
        boxes=np.stack([truth.box for truth in truths]),
        angles=np.array([[truth.yaw, truth.pitch, truth.roll] for truth in truths], np.float32),
        prompt=truths[0].prompt,
        face_prompts=tuple(truth.face_prompt for truth in truths),
    )
