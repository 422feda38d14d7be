"""The whole line on small bases of other classes, from drawn people to a registered version that is served."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.foundation.random_models import save_random_flux, save_random_models
from tests.processes import SMALL_CHAIN, commit_all, dynamicid, git, run
from tests.random_bases import WIDTH, XL_WIDTHS, save_xl

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]
_SERVE = """
import base64, io, sys
import mlflow, pandas as pd
from PIL import Image
mlflow.set_tracking_uri("sqlite:///mlflow.db")
photo = base64.b64encode(open(sys.argv[1], "rb").read()).decode()
request = pd.DataFrame([{"prompt": "a photo of a person", "references": [photo], "face_prompts": ["happy"], "seed": 1}])
picture = mlflow.pyfunc.load_model("models:/dynamicid/1").predict(request).iloc[0]["image"]
Image.open(io.BytesIO(base64.b64decode(picture))).save("served.png")
"""


@pytest.fixture
def home(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("MLFLOW_TRACKING_URI", "DYNAMICID_HOME"):
        monkeypatch.delenv(name, raising=False)
    git(tmp_path, "clone", "-q", str(checkout), str(tmp_path / "home"))
    return tmp_path / "home"


def _xl(home: Path) -> tuple[list[str], int]:
    """Return the parameters of a base of XL's class, and the width of its identity tokens."""
    plain = save_random_models(home / "weights" / "plain")
    torch.manual_seed(0)
    save_xl(home / "weights" / "xl", plain.pipeline)
    assert sum(XL_WIDTHS) == WIDTH
    return ["base.pipeline=weights/xl", "base.image_encoder=weights/plain/image_encoder"], WIDTH


def _flux(home: Path) -> tuple[list[str], int]:
    """Return the same of a transformer, which is drawn with by Euler's method."""
    save_random_flux(home / "weights" / "transformer")
    folder = "weights/transformer"
    changes = [f"base.pipeline={folder}/flux", f"base.image_encoder={folder}/image_encoder"]
    return [*changes, "evaluate.sampler=euler", "evaluate.guidance_rescale=0", "evaluate.layout=regions"], 64


@pytest.mark.parametrize("make", [_xl, _flux])
def test_it_is_trained_evaluated_registered_and_served(
    home: Path, make: Callable[[Path], tuple[list[str], int]]
) -> None:
    made, width = make(home)
    base = ("domain=drawn", "hair=true")
    few = ("train_anchoring.steps=3", "train_imr.steps=4", "evaluate.shipped_adapter=null")
    small = ("lora_rank=2", "reconfigurator_width=32", "reconfigurator_heads=2", "landmark_features=16")
    changes = [*SMALL_CHAIN, *few, *made, *(f"base.{one}" for one in base)]
    changes += [f"train_anchoring.sizes.{one}" for one in small]
    changes += ["train_anchoring.start_from=null", "train_imr.start_from=null", "train_anchoring.samples_every=3"]
    dynamicid("configure", *(part for change in changes for part in ("--set", change)), cwd=home)
    dynamicid("synthesize", "--identities", "10", "--out", ".dynamicid/photos", cwd=home)
    dynamicid("ingest", ".dynamicid/photos", cwd=home)
    dynamicid("repro", cwd=home)
    config = json.loads((home / "models/adapter/config.json").read_text())
    assert config["cross_attention_width"] == width
    metrics = json.loads((home / "reports/metrics.json").read_text())
    assert {"model", "text_only", "without_gate", "without_imr"} <= metrics.keys()
    commit_all(home, "A first model on this base")
    registered = json.loads(dynamicid("register", "--accept-refusal", cwd=home).stdout)
    assert registered["version"] == "1"
    person = next((home / ".dynamicid/photos").rglob("1.jpg"))
    asked = ("--reference", str(person), "--prompt", "a photo of a person", "--face-prompt", "sad", "--steps", "2")
    dynamicid("generate", *asked, "--adapter", "models:/dynamicid/1", "--out", "drawn.png", cwd=home)
    run(sys.executable, "-c", _SERVE, person, cwd=home)
    assert Image.open(home / "drawn.png").size == Image.open(home / "served.png").size == (64, 64)
