"""Does the method hold on photographs? Both trainings with several seeds on a base of photographs, each evaluated.

Run it in a checkout that has ingested photos (`data/faces`), the networks of the profile `photographs` and its base
(docs/guides/own-photos.md, "A base of your own photographs"):

    python benchmarks/photographs.py run --out reports/photographs --seed 0 --seed 1 --seed 2
    python benchmarks/photographs.py run --set train_anchoring.steps=4 …    # a trial of the whole chain
    python benchmarks/photographs.py table reports/photographs
    python benchmarks/photographs.py sheet weights/photographs sheet.png

Each seed is a run of the chain up to registration. A run that was stopped goes on where it was; a seed whose figures
are in the folder is not run again. `table` prints them in Markdown. `sheet` draws the base without an adapter.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from model.face.face_prompts import EXPRESSIONS, POSE_PHRASES
from model.foundation.photographs import SUBJECT
from pipelines.core.chain import METRICS, REPORT
from pipelines.evaluation.variants import HEADINGS, MODEL, TEXT_ONLY, TRUE_TOKENS, WITHOUT_GATE, WITHOUT_IMR

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
VARIANTS = (MODEL, TEXT_ONLY, WITHOUT_GATE, WITHOUT_IMR, TRUE_TOKENS)
# Bounds of two claims. Of 40 people, chance is 0.025; happy against neutral, it is 0.5.
OWN_OVER_OTHER, READ_RIGHT = 0.2, 0.8
NONE = "not measurable"


@app.command()
def run(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the figures of every seed.")] = Path("reports/photographs"),
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seed of both trainings; repeatable.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE")] = None,
    profile: Annotated[str, typer.Option(help="Profile.")] = "photographs",
    register: Annotated[bool, typer.Option(help="Register every adapter, also one whose gates fail.")] = True,
) -> None:
    """Train, evaluate and register with every seed; write seed-N.json and table.md into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds or [0, 1, 2]:
        file = out / f"seed-{seed}.json"
        if file.is_file():
            print(f"{file}: there already", file=sys.stderr)
            continue
        changes = [*(overrides or ()), f"train_anchoring.seed={seed}", f"train_imr.seed={seed}"]
        started = time.time()
        _call("configure", "--profile", profile, *(part for change in changes for part in ("--set", change)))
        _call("repro")
        if register:
            _call("register", "--accept-refusal")
        document = json.loads(Path(METRICS).read_bytes())
        document["benchmark"] = {"seed": seed, "set": overrides or [], "hours": (time.time() - started) / 3600}
        part = file.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(file)
        shutil.copyfile(REPORT, out / f"seed-{seed}.html")
    (out / "table.md").write_text(table_of(_read(out)), encoding="utf-8")


@app.command()
def table(folder: Annotated[Path, typer.Argument(help="Folder of seed-N.json.")]) -> None:
    """Print the table of all seeds."""
    print(table_of(_read(folder)))


@app.command()
def sheet(
    weights: Annotated[Path, typer.Argument(help="Folder with `sd`.")],
    file: Annotated[Path, typer.Argument(help="PNG to write.")],
    *,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1)] = 20,
    guidance: Annotated[float, typer.Option(help="Guidance scale.", min=0)] = 2.0,
    columns: Annotated[int, typer.Option(help="Pictures of each text.", min=1)] = 6,
) -> None:
    """Draw the base: three expressions, front and turned, the same noise down each column."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipe = StableDiffusionPipeline.from_pretrained(weights / "sd", torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    texts = [f"{word}, {POSE_PHRASES[pose]}" for word in EXPRESSIONS[:2] for pose in ("front", "half_left")]
    rows = []
    for text in [*texts, f"surprised, {POSE_PHRASES['front']}"]:
        noise = [torch.Generator().manual_seed(column) for column in range(columns)]
        options: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "guidance_rescale": 0.7}
        prompts = [f"{SUBJECT}, {text}"] * columns
        rows.append(np.concatenate(list(pipe(prompts, generator=noise, output_type="np", **options).images), axis=1))
    Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8)).save(file)


def table_of(documents: list[dict[str, Any]]) -> str:
    """Return the figures of all seeds in Markdown, with 95 % intervals over people, and which claims hold."""
    heads = ["seed", *(f"s, {HEADINGS[variant]}" for variant in VARIANTS), "own over other", "happy or neutral"]
    heads += ["model − without IMR (expression)", "model − without IMR (s)", "claims"]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for one in documents:
        similar = [one["normalised"].get(variant, {}).get("id_similarity") for variant in VARIANTS]
        gains = one.get("comparisons", {}).get(f"{MODEL}_minus_{WITHOUT_IMR}", {})
        gain = gains.get("expression_accuracy")
        own, right = one[MODEL].get("own_over_other"), happy_or_neutral(one)
        cells = [str(one["benchmark"]["seed"]), *map(_interval, similar), _interval(own)]
        cells += [NONE if right is None else f"{right:.2f}", _interval(gain), _interval(gains.get("id_similarity"))]
        lines.append(" | ".join([*cells, claims(similar, own, right, gain)]))
    return "".join(f"| {line} |\n" for line in lines)


def claims(similar: list[Any], own: Any, right: float | None, gain: Any) -> str:
    """Return which claims of the method the figures of a seed support; what cannot be measured supports none."""
    model, text_only = similar[VARIANTS.index(MODEL)], similar[VARIANTS.index(TEXT_ONLY)]
    held = {
        "above text only": _value(model, "low") > _value(text_only, "high"),
        f"own over other ≥ {OWN_OVER_OTHER}": _value(own, "value") >= OWN_OVER_OTHER,
        f"happy or neutral ≥ {READ_RIGHT}": right is not None and right >= READ_RIGHT,
        "the IMR helps": _value(gain, "low") > 0,
    }
    return "; ".join(f"{name}: {'yes' if holds else 'no'}" for name, holds in held.items())


def happy_or_neutral(document: dict[str, Any]) -> float | None:
    """Return the share that is read as asked, of pictures asked and read to be happy or neutral; None of none."""
    counts: Any = (document.get("confusion", {}).get(MODEL) or {}).get("expression")
    two = [EXPRESSIONS.index(word) for word in ("happy", "neutral")]
    read = sum(counts[asked][found] for asked in two for found in two) if counts else 0
    return sum(counts[asked][asked] for asked in two) / read if read else None


def _value(interval: Any, name: str) -> float:
    """Return a number of an interval, NaN, which no comparison holds for, where there is none."""
    found = (interval or {}).get(name)
    return float("nan") if found is None else float(found)


def _interval(found: Any) -> str:
    if (found or {}).get("value") is None:
        return NONE
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_bytes()) for file in sorted(folder.glob("seed-*.json"))]


def _call(*arguments: str) -> None:
    """Run `dynamicid` with these arguments; end with its exit code where that is not 0."""
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *arguments], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


if __name__ == "__main__":
    app()
