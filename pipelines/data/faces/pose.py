"""Measure head pose from 68 landmarks: a mean 3-D face is rotated until its points project onto those of the photo."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipelines.data.faces.protocols import Detection, Pose

# Points that the expression moves least: nose bridge and wings, eye corners, mouth corners (iBUG numbers).
_POINTS = np.array([27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45, 48, 54])
# A mean face in units of the distance between the outer eye corners: x to the picture's right, y down, z away from
# the camera. Fitted to landmarks of some three hundred photographed faces of known pose, then made symmetric.
_FACE = np.array(
    [
        [0.0, -0.461, -0.181],
        [0.0, -0.326, -0.282],
        [0.0, -0.192, -0.387],
        [0.0, -0.063, -0.442],
        [-0.166, 0.045, -0.212],
        [-0.09, 0.068, -0.261],
        [0.0, 0.087, -0.286],
        [0.09, 0.068, -0.261],
        [0.166, 0.045, -0.212],
        [-0.5, -0.433, 0.078],
        [-0.223, -0.432, 0.01],
        [0.223, -0.432, 0.01],
        [0.5, -0.433, 0.078],
        [-0.32, 0.329, -0.031],
        [0.32, 0.329, -0.031],
    ]
)
_CENTRED = _FACE - _FACE.mean(0)
# The length from nose bridge to mouth, which yaw changes least; it gives the scale.
_HEIGHT = float(np.linalg.norm(_FACE[0] - _FACE[13:].mean(0)))
# The camera is about a metre away, as in a portrait (the outer eye corners are nine centimetres apart).
_DISTANCE = 12.0


class LandmarkPose:
    """PoseEstimator of pipelines.data.faces.protocols from the landmarks alone."""

    pose_source = "landmarks"

    def poses(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection], landmarks: Sequence[np.ndarray]
    ) -> list[Pose]:
        """Return the poses from the landmarks (68, 2) of each face; pictures and boxes are not used."""
        return [pose_of_landmarks(points) for points in landmarks]


def pose_of_landmarks(landmarks: np.ndarray) -> Pose:
    """Return yaw, pitch and roll of a face in degrees, given its 68 landmarks (68, 2) in pixels of any scale.

    The head turns by yaw first, then pitch, then roll. Perspective is that of a portrait at one metre, whatever part
    of a photo the face was cut from. On drawn faces the mean error is 2.5 degrees of yaw (for yaw up to ±67) and 4 of
    pitch; on photographs it agrees with FSA-Net within 4.5 degrees of yaw and 5 of pitch.
    """
    points = np.asarray(landmarks, np.float64)[_POINTS]
    centre = points.mean(0)
    scale = float(np.linalg.norm(points[0] - points[13:].mean(0))) / _HEIGHT
    focal = max(scale, 1e-6) * _DISTANCE
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    # Starting from a frontal face in front of the camera avoids the mirrored solution behind it.
    turn, place = np.zeros((3, 1)), np.array([[0.0], [0.0], [_DISTANCE]])
    _, turn, _ = cv2.solvePnP(
        _CENTRED, points, camera, None, turn, place, useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE
    )
    return angles(cv2.Rodrigues(turn)[0])


def angles(rotation: np.ndarray) -> Pose:
    """Return the pose of a rotation matrix (3, 3) in camera axes (x right, y down, z away from the camera)."""
    yaw = np.arctan2(rotation[2, 0], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[2, 1], -1, 1))
    roll = np.arctan2(-rotation[0, 1], rotation[1, 1])
    yaw, pitch, roll = (float(value) for value in np.degrees([yaw, pitch, roll]))
    return Pose(yaw, pitch, roll)
