"""Software bills of materials (CycloneDX 1.6) of the images, from their Dockerfiles and the lock file.

They state what an image is built from: its base image with the digest, if that is locked, the packages of Debian by
name, and every Python package with the version that is installed here, which is that of `constraints.txt`. What is in a
built image, also of its base, a scanner finds (docs/guides/supply-chain.md).
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import write_atomically
from pipelines.operations.stack.images import Image, read_lock

DOCKERFILES = {"worker": "Dockerfile", "airflow": "airflow.Dockerfile", "mlflow": "mlflow.Dockerfile"}
_OPTIONS_WITH_VALUE = ("-c", "-e")


def write_sboms(root: Path, out: Path) -> list[Path]:
    """Write `<image>.cdx.json` of every image to `out`, each validated against the schema; return the files."""
    try:
        import cyclonedx  # noqa: F401
    except ImportError:
        raise UserError("bills of materials need: pip install -c constraints.txt '.[dev]'") from None
    images = {image.variable: image for image in read_lock(root)}
    files = []
    for name, dockerfile in DOCKERFILES.items():
        text = (root / "docker" / dockerfile).read_text(encoding="utf-8")
        files.append(_write(out / f"{name}.cdx.json", _built(name, text, images["PYTHON_IMAGE"])))
    for variable, name in (("POSTGRES_IMAGE", "postgres"), ("OBJECTS_IMAGE", "objects")):
        files.append(_write(out / f"{name}.cdx.json", _bom(_container(images[variable]))))
    return files


def python_packages(requirements: Iterable[str]) -> dict[str, tuple[str, set[str]]]:
    """Return {name: (version, names of what it needs)} of requirements and all that they need, as installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, tuple[str, set[str]]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, parent = waiting.pop()
        name = canonicalize_name(requirement.name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise StageFailed(f"{name}: not in this environment, so its version is unknown; `make env`") from None
        found.setdefault(name, (package.version, set()))
        if parent:
            found[parent][1].add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = map(Requirement, package.requires or ())
            waiting += [(one, name) for one in needs if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def installed_by(dockerfile: str) -> tuple[list[str], list[str]]:
    """Return the packages of Debian and the requirements of pip that a Dockerfile installs by default.

    What it installs only for another value of an argument (`RUN if …`) is not in the image that is built.
    """
    text = re.sub(r"^RUN if .*$", "", dockerfile.replace("\\\n", " "), flags=re.MULTILINE)
    debian = [word for part in re.findall(r"apt-get install ([^&\n]+)", text) for word in shlex.split(part)]
    words = [word for part in re.findall(r"pip install ([^&\n]+)", text) for word in shlex.split(part)]
    python = [
        re.sub(r"^\.(?=\[)", "dynamicid", word)
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before != "-c"
    ]
    return [word for word in debian if not word.startswith("-")], python


def _built(name: str, dockerfile: str, base: Image) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    debian, python = installed_by(dockerfile)
    image = Component(name=f"dynamicid-{name}", type=ComponentType.CONTAINER)
    bom = _bom(image)
    parts = [_container(base)]
    parts += [
        Component(name=one, type=ComponentType.LIBRARY, bom_ref=f"deb/{one}", purl=PackageURL("deb", "debian", one))
        for one in debian
    ]
    packages = python_packages(python)
    libraries = {
        one: Component(
            name=one,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"pypi/{one}",
            purl=PackageURL("pypi", name=one, version=version),
        )
        for one, (version, _) in packages.items()
    }
    for part in (*parts, *libraries.values()):
        bom.components.add(part)
    bom.register_dependency(image, [*parts, *libraries.values()])
    for one, (_, needed) in packages.items():
        bom.register_dependency(libraries[one], [libraries[other] for other in sorted(needed - {one})])
    return bom


def _container(image: Image) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    path, _, tag = image.tag.partition(":")
    namespace, _, name = path.rpartition("/")
    url = PackageURL("docker", namespace or None, name, image.digest or tag)
    return Component(name=path, version=tag, type=ComponentType.CONTAINER, bom_ref=image.variable, purl=url)


def _bom(about: Any) -> Any:
    from cyclonedx.model.bom import Bom

    bom = Bom()
    bom.metadata.component = about
    return bom


def _write(file: Path, bom: Any) -> Path:
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if (problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise StageFailed(f"{file}: not valid CycloneDX: {problem}")
    write_atomically(file, text + "\n")
    return file
