"""Write a dataset of procedural people: photos in one folder per identity, with text files of their prompts."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

from model.face.face_prompts import EXPRESSIONS, POSES
from model.processors import use_one_thread
from pipelines.core.errors import UserError
from pipelines.core.files import atomic_file, atomic_folder, write_atomically
from pipelines.core.words import counted
from pipelines.data.synthetic.person import NAMESPACES, Person, stream
from pipelines.data.synthetic.scene import Scene

JPEG_QUALITY = 92
MANIFEST = ".synthesize.json"
_DRAWING_VERSION = 2
# Every expression in every pose.
SCENES = len(EXPRESSIONS) * len(POSES)


def identity_name(index: int, namespace: str) -> str:
    """Return the folder name of a person; those of different namespaces have different names."""
    return f"person_{index:05d}" if namespace == "dataset" else f"{namespace}-{index:05d}"


def person_scenes(seed: int, index: int, namespace: str = "dataset") -> list[Scene]:
    """Return a person's 35 scenes: every expression in every pose, each with random clothes and background."""
    noun = "woman" if Person.sample(namespace, seed, index).presentation == "feminine" else "man"
    rng = stream(f"{namespace} scenes", seed, index)
    return [Scene.sample(rng, expression, pose, noun) for expression in EXPRESSIONS for pose in POSES]


def chosen_scenes(index: int, photos: int) -> list[int]:
    """Return the numbers of the scenes of a person with `photos` of the 35 photos, ascending.

    Seven photos show every expression and every pose; over 35 people, every scene is equally frequent.
    """
    # Each turn takes the next expression and the next pose: 7 and 5 are coprime, so 35 turns visit every scene.
    turns = range(11 * index, 11 * index + photos)
    return sorted(turn % len(EXPRESSIONS) * len(POSES) + turn % len(POSES) for turn in turns)


def write_dataset(
    identities: int,
    out: Path,
    *,
    photos: int = SCENES,
    seed: int = 0,
    size: int = 128,
    workers: int = 2,
    truth: Path | None = None,
    namespace: str = "demo",
) -> int:
    """Draw `identities` people with `photos` photos each (1 to 35) into `out`; return the number of new people.

    Each person of `namespace` (see NAMESPACES) is a folder `demo-00042` of files `<n>.jpg` with `<n>.txt` (line 1 the
    prompt, line 2 the face prompt). Its files depend on namespace, seed, photos and size only. A person's folder is
    written atomically, so the next call completes an interrupted one. `truth`: Parquet file for the ground truth.

    Raise UserError if an argument is out of range, or if `out` contains other files or was drawn with other arguments.
    """
    if identities < 1 or workers < 1 or size < 16 or not 1 <= photos <= SCENES:
        raise UserError(
            f"synthesize: identities {identities}, photos {photos}, workers {workers}, size {size}: expected at least "
            f"1, 1, 1 and 16, and at most {SCENES} photos"
        )
    if namespace not in NAMESPACES:
        known = "; ".join(f"{name}: {meaning}" for name, meaning in NAMESPACES.items())
        raise UserError(f"synthesize: namespace {namespace}: expected one of {known}")
    arguments = {"identities": identities, "photos": photos, "seed": seed, "size": size}
    _claim(out, {**arguments, "namespace": namespace}, identities)
    missing = [index for index in range(identities) if not (out / identity_name(index, namespace)).is_dir()]
    jobs = [(str(out), index, photos, seed, size, namespace) for index in missing]
    if jobs:
        _run(jobs, min(workers, len(jobs)))
    if truth is not None:
        write_truth(identities, truth, photos=photos, seed=seed, size=size, namespace=namespace)
    return len(missing)


def _claim(out: Path, arguments: dict[str, int | str], identities: int) -> None:
    """Write the arguments to the manifest in `out`; raise UserError if they differ from it (more people are fine)."""
    wanted = {"drawing": _DRAWING_VERSION, **arguments}
    manifest = out / MANIFEST
    if manifest.exists():
        found = {"photos": SCENES, "namespace": "dataset", **json.loads(manifest.read_text())}
        for name in ("drawing", "namespace", "photos", "seed", "size"):
            if found.get(name) != wanted[name]:
                raise UserError(
                    f"{out} was drawn with {name} {found.get(name)}, asked for {wanted[name]}: choose another folder"
                )
        if found["identities"] > identities:
            raise UserError(
                f"{out} contains {counted(found['identities'], 'person', 'people')}, asked for {identities}: "
                "a folder only grows, choose another one for fewer"
            )
        for unfinished in out.glob(f".{identity_name(0, str(wanted['namespace']))[:-5]}*"):
            shutil.rmtree(unfinished)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and was not drawn by synthesize: choose another folder")
    write_atomically(manifest, json.dumps(wanted, sort_keys=True) + "\n")


def _run(jobs: list[tuple[str, int, int, int, int, str]], workers: int) -> None:
    from tqdm import tqdm

    with tqdm(total=len(jobs), desc="synthesize", unit="person") as bar:
        if workers == 1:
            for job in jobs:
                _draw_person(job)
                bar.update()
            return
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for _ in pool.imap_unordered(_draw_person, jobs):
                bar.update()


def _draw_person(job: tuple[str, int, int, int, int, str]) -> None:
    from PIL import Image

    from pipelines.data.synthetic.draw import render

    folder, index, photos, seed, size, namespace = job
    use_one_thread()
    person = Person.sample(namespace, seed, index)
    scenes = person_scenes(seed, index, namespace)
    with atomic_folder(Path(folder) / identity_name(index, namespace)) as part:
        for number in chosen_scenes(index, photos):
            picture = render(person, scenes[number], size)
            Image.fromarray(picture.image).save(part / f"{number}.jpg", quality=JPEG_QUALITY)
            (part / f"{number}.txt").write_text(f"{picture.prompt}\n{picture.face_prompt}\n")


def write_truth(
    identities: int, file: Path, *, photos: int = SCENES, seed: int = 0, size: int = 128, namespace: str = "demo"
) -> None:
    """Write the ground truth of a dataset as Parquet, one row per photo, for measuring face analysis.

    Columns: file_name, identity, presentation, skin_tone, expression, pose, yaw, pitch, roll, landmarks (136),
    keypoints (10), box (4), prompt, face_prompt.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.data.synthetic.draw import truth

    rows = []
    for index in range(identities):
        person, name = Person.sample(namespace, seed, index), identity_name(index, namespace)
        scenes = person_scenes(seed, index, namespace)
        for number in chosen_scenes(index, photos):
            values = dict(vars(truth(person, scenes[number], size)))
            arrays = {key: values.pop(key).ravel().tolist() for key in ("landmarks", "keypoints", "box")}
            group = {"presentation": person.presentation, "skin_tone": person.skin_tone}
            rows.append({"file_name": f"{name}/{number}.jpg", "identity": name} | group | values | arrays)
    with atomic_file(file) as part:
        pq.write_table(pa.Table.from_pylist(rows), part)
