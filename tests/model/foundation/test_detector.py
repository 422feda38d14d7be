import numpy as np
import pytest
import torch

from model.foundation import detector as module
from model.foundation.canvases import MAX_FACES, SIDE, Canvases, canvases
from model.foundation.detector import STRIDES, Detector, export, open_analysis
from model.foundation.people import PhotoSpec, RenderedPhoto
from model.foundation.render import render_people


def draw(spec: PhotoSpec) -> RenderedPhoto:
    """Draw white squares for faces."""
    rng = np.random.default_rng([*spec.people, spec.photo])
    image = np.full((spec.size, spec.size, 3), rng.integers(0, 255, 3), np.uint8)
    faces = len(spec.people)
    middle = np.array([[(face + 0.5) / faces, 0.5] for face in range(faces)], np.float32) * spec.size
    boxes = np.hstack([middle - spec.size * 0.2, middle + spec.size * 0.2]).astype(np.float32)
    for x0, y0, x1, y1 in boxes.astype(int):
        image[y0:y1, x0:x1] = 255
    spots = np.array([[-8, -8], [8, -8], [0, 0], [-6, 8], [6, 8]], np.float32)
    return RenderedPhoto(
        image=image,
        landmarks=np.repeat(middle[:, None], 68, 1),
        keypoints=middle[:, None] + spots,
        boxes=boxes,
        angles=np.zeros((faces, 3), np.float32),
        prompt="",
        face_prompts=("",) * faces,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return render_people(folder, draw, people=14, photos=4, size=128, workers=1, groups=0.5)


def perfect(batch: Canvases, size: float) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return the outputs of a detector without error for the first face of every canvas."""
    centres, sizes, strides = module._anchors()
    boxes, points = torch.from_numpy(batch.boxes[:, :1]), torch.from_numpy(batch.keypoints[:, 0])
    low, high = centres - boxes[..., :2], boxes[..., 2:] - centres
    distances = torch.cat([low, high], -1) / strides[:, None]
    offsets = ((points[:, None] - centres[:, None]) / strides[:, None, None]).flatten(2)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    upper = torch.where(sizes > 4 * strides, 1.15, 0.6)
    matching = (
        ((middle - centres).abs().amax(-1) < 0.3 * size)
        & ((size / sizes).log2() > -0.6)
        & ((size / sizes).log2() < upper)
    )
    logits = torch.where(matching, 12.0, -12.0)[..., None]
    return [(logits, distances, offsets)]


def one_face(size: float) -> Canvases:
    boxes = np.zeros((1, MAX_FACES, 4), np.float32)
    boxes[0, 0] = [64 - size / 2, 64 - size / 2, 64 + size / 2, 64 + size / 2]
    points = np.zeros((1, MAX_FACES, 5, 2), np.float32)
    points[0, 0] = 64
    state = np.zeros((1, MAX_FACES), np.int8)
    state[0, 0] = 1
    return Canvases(np.zeros((1, SIDE, SIDE, 3), np.uint8), boxes, points, state)


@pytest.mark.parametrize("size", [18, 25, 40, 65, 90, 115])
def test_the_loss_is_small_for_the_truth_and_grows_with_an_error(size):
    batch = one_face(size)
    truth = perfect(batch, size)
    good = module._losses(truth, batch)
    assert good["loss"] < 0.1
    assert good["iou"] > 0.99
    assert good["points"] < 1e-6
    worse = module._losses([(logits, distances + 0.3, offsets) for logits, distances, offsets in truth], batch)
    assert worse["loss"] > good["loss"] + 0.1


def test_a_canvas_without_faces_expects_none():
    batch = one_face(40)
    batch.state[:] = 0
    quiet = [(torch.full((1, 672, 1), -12.0), torch.ones(1, 672, 4), torch.zeros(1, 672, 10))]
    assert module._losses(quiet, batch)["loss"] < 1e-3


def test_canvases_contain_their_faces(data):
    batch = canvases(data, 64, np.random.default_rng(5))
    faces = batch.state == 1
    assert faces.sum() > 40
    assert (batch.state.any(1) == 0).any()
    middle = (batch.boxes[..., :2] + batch.boxes[..., 2:]) / 2
    assert np.abs(batch.keypoints[faces].mean(1) - middle[faces]).max() < 6
    whole = faces & (batch.boxes.min(-1) > 0) & (batch.boxes.max(-1) < SIDE)
    bright = [
        batch.images[number, int(middle[number, face, 1]), int(middle[number, face, 0])].mean()
        for number, face in zip(*np.nonzero(whole), strict=True)
    ]
    assert np.mean(bright) > 200


def test_the_same_generator_gives_the_same_canvases(data):
    first, second = (canvases(data, 4, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.boxes, second.boxes)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A model folder whose detector finds faces everywhere."""
    folder = tmp_path_factory.mktemp("pack")
    torch.manual_seed(0)
    detector = Detector()
    detector.network.head.bias.data[[0, 15]] = 4.0
    export(detector, folder / "det.onnx")
    return folder


@pytest.mark.parametrize("det_size", [(128, 128), (96, 96), (320, 320), None])
def test_face_analysis_loads_and_decodes_it(pack, det_size):
    analysis = open_analysis(pack, det_size)
    model = analysis.models["detection"]
    assert (model.fmc, model._num_anchors, model.use_kps) == (3, 2, True)
    faces = analysis.get(np.full((100, 128, 3), 127, np.uint8))
    assert faces
    assert faces[0].bbox.shape == (4,)
    assert faces[0].kps.shape == (5, 2)


def test_anchors_strides_and_units_are_those_of_face_analysis(pack):
    model = open_analysis(pack, (128, 128)).models["detection"]
    scores, boxes, _points = model.forward(np.full((SIDE, SIDE, 3), 127, np.uint8), 0.5)
    assert [len(level) for level in scores] == [2 * (SIDE // stride) ** 2 for stride in STRIDES]
    centres, sizes, _ = module._anchors()
    got = np.vstack(boxes)
    middle, side = (got[:, :2] + got[:, 2:]) / 2, got[:, 2:] - got[:, :2]
    assert np.abs(middle - centres.numpy()).max() < 0.2 * sizes.max()
    assert np.abs(side / sizes.numpy()[:, None] - 1.2).max() < 0.4
