"""Sections of `params.yaml` for ONNX networks that read a face: how its picture is cut, and what the outputs mean."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.core.sections.section import Section, Share

Angle = Literal["yaw", "-yaw", "pitch", "-pitch", "roll", "-roll", "none"]
Crop = Literal["box", "arcface", "face"]
Positive = Annotated[float, Field(gt=0)]
Channels = tuple[float, float, float]


class FaceNetwork(Section):
    """An ONNX network that reads one face. Its input is (pixel - mean) / scale, with pixels from 0 to 255."""

    path: str = Field(description="ONNX file.")
    crop: Crop = Field(
        "box",
        description="box: a square around the middle of the face box; arcface: aligned by five key points, as face "
        "recognisers expect; face: aligned likewise, with chin and forehead.",
    )
    crop_scale: float = Field(1.0, gt=0, description="Box: side of the square, as a multiple of the longer side.")
    outside: Literal["black", "edge"] = Field(
        "black", description="Box: what is seen where the square leaves the photo; edge: the photo's last pixels."
    )
    size: int = Field(112, ge=16, description="Side of the input, in pixels.")
    colour: Literal["rgb", "bgr", "grey"] = Field("rgb", description="Channels of the input, in order.")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="Axes of the input: channels first or last.")
    mean: float | Channels = Field(127.5, description="Subtracted from every pixel, or from each channel.")
    scale: Positive | tuple[Positive, Positive, Positive] = Field(
        127.5, description="Divisor after the subtraction, for all channels or for each."
    )
    output: str | None = Field(None, description="Name of the output that is read; null: the first.")
    mirror: bool = Field(False, description="Also read the mirror image, and average.")

    @model_validator(mode="after")
    def _fits(self) -> FaceNetwork:
        if self.crop != "box" and (self.crop_scale != 1 or self.outside != "black"):
            raise ValueError(f"crop_scale and outside are for crop: box; remove them for crop: {self.crop}")
        if self.crop == "arcface" and self.size % 112 and self.size % 128:
            raise ValueError(f"size {self.size}: an arcface crop has a multiple of 112 or of 128 pixels")
        if self.colour == "grey" and not (isinstance(self.mean, float) and isinstance(self.scale, float)):
            raise ValueError("a grey input has one channel: give mean and scale one number each")
        return self

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input without the batch, in the order of `layout`."""
        plane = (self.size, self.size)
        return (self.channels, *plane) if self.layout == "nchw" else (*plane, self.channels)


class FaceClassifier(FaceNetwork):
    """A network that gives one value per class."""

    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="Classes in the order of the outputs; `other`: a class that no word of the project names. null: "
        "`classes` in the file's metadata_props.",
    )
    values: Literal["probabilities", "logits"] = Field(
        "probabilities", description="Whether the softmax is applied in the network already, or not yet."
    )


class FaceRegressor(FaceNetwork):
    """A network that measures angles of the head, in degrees."""

    angles: tuple[Angle, ...] = Field(
        ("yaw", "pitch", "roll"),
        min_length=1,
        description="What the outputs are, in order; - where the network counts the other way: here yaw is positive "
        "to the picture's right, pitch upwards, roll clockwise. none: not read.",
    )

    @model_validator(mode="after")
    def _once(self) -> FaceRegressor:
        named = [angle.lstrip("-") for angle in self.angles if angle != "none"]
        if not named or len(named) != len(set(named)):
            raise ValueError(f"angles {list(self.angles)}: expected yaw, pitch or roll, each at most once")
        return self


class Expression(Section):
    """Networks that name the expression of a face; the mean of their probabilities decides, so disagreement lowers it.

    A face prompt that was given with the photo goes first; the caption sources then name no expressions.
    """

    networks: tuple[FaceClassifier, ...] = Field((), description="ONNX classifiers; empty: the caption sources decide.")
    min_confidence: Share = Field(
        0.0, description="Minimum mean probability; below it the expression stays open (null)."
    )
    min_confidence_of: dict[str, Share] = Field(
        {}, description="By expression, in place of min_confidence; 1: hardly ever named, as it is too often wrong."
    )


class HeadPose(Section):
    """Networks that measure the pose of a face; the mean of their angles is taken."""

    networks: tuple[FaceRegressor, ...] = Field(
        (), description="ONNX networks; empty: the face pack, else the 68 landmarks."
    )
    max_spread: float = Field(
        15.0,
        gt=0,
        description="Maximum difference in yaw between the networks, in degrees; above it the pose stays open (null).",
    )
