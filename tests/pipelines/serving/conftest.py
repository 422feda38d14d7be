"""A registered model on random base models, served by MLflow itself, and photos of two drawn people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photos(drawn_people: list[Path]) -> list[bytes]:
    return [file.read_bytes() for file in drawn_people]


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory,
    random_home: Callable[[Path], Path],
    with_shipped_networks: Callable[[Path], Path],
) -> Path:
    """What a registered version's artefacts are made from: adapter and parameters."""
    return with_shipped_networks(random_home(tmp_path_factory.mktemp("served")))


@pytest.fixture(scope="module")
def registered(model_folder: Path) -> Iterator[str]:
    """The address of version 1 in a separate registry, logged with a signature as by `dynamicid register`."""
    import mlflow
    import pandas as pd

    from pipelines.registry.log_model import CODE, input_example, signature

    with pytest.MonkeyPatch.context() as patch:
        # Other tests of this process may have set another address and experiment, which stay set.
        before, registry = mlflow.get_tracking_uri(), f"sqlite:///{model_folder / 'mlflow.db'}"
        patch.setenv("MLFLOW_TRACKING_URI", registry)
        patch.chdir(model_folder)
        mlflow.set_tracking_uri(registry)
        with mlflow.start_run(experiment_id="0"):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(CODE),
                artifacts={
                    "adapter": str(model_folder / "models" / "adapter"),
                    "params": str(model_folder / "params.yaml"),
                },
                signature=signature(),
                input_example=pd.DataFrame(input_example()),
                pip_requirements=[],
                registered_model_name="dynamicid",
            )
        yield "models:/dynamicid/1"
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def server(registered: str) -> Iterator[str]:
    """The address of `mlflow models serve` on that version."""
    from benchmarks.serving_load import served

    with served(registered) as url:
        yield url
