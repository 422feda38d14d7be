"""Draw the people that the foundation is trained on; none of them is in a dataset."""

from __future__ import annotations

import numpy as np

from model.foundation.people import PhotoSpec, RenderedPhoto
from pipelines.data.synthetic.draw import Truth, reach, render, render_group, render_placed
from pipelines.data.synthetic.person import Person
from pipelines.data.synthetic.places import place_people
from pipelines.data.synthetic.scene import Scene

NAMESPACE = "foundation"


def draw(spec: PhotoSpec) -> RenderedPhoto:
    """Draw the picture of `spec`; the same spec gives the same picture."""
    rng = np.random.default_rng([spec.seed, 2, len(spec.people), *spec.people, spec.photo, *(spec.canvas or ())])
    members = []
    for number, expression, pose in zip(spec.people, spec.expressions, spec.poses, strict=True):
        person = Person.sample(NAMESPACE, spec.seed, number)
        noun = "woman" if person.presentation == "feminine" else "man"
        members.append((person, Scene.sample(rng, expression, pose, noun)))
    truths: list[Truth]
    if spec.canvas is not None:
        places = place_people(rng, [reach(*member) for member in members], *spec.canvas)
        image, truths = render_placed(members, places, spec.canvas)
    elif len(members) == 1:
        picture = render(*members[0], spec.size)
        image, truths = picture.image, [picture]
    else:
        image, truths = render_group(members, spec.size)
    return RenderedPhoto(
        image=image,
        landmarks=np.stack([truth.landmarks for truth in truths]),
        keypoints=np.stack([truth.keypoints for truth in truths]),
        boxes=np.stack([truth.box for truth in truths]),
        angles=np.array([[truth.yaw, truth.pitch, truth.roll] for truth in truths], np.float32),
        prompt=truths[0].prompt,
        face_prompts=tuple(truth.face_prompt for truth in truths),
    )
