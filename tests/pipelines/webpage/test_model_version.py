"""The page finds its model and shows its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.webpage.model_version import find_model


def register(folder: Path, config: str) -> None:
    """Register a version whose adapter has this configuration."""
    import mlflow

    class Nothing(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "config.json").write_text(config)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="model",
            python_model=Nothing(),
            artifacts={"adapter": str(adapter)},
            pip_requirements=[],
            registered_model_name="dynamicid",
        )


def test_a_folder_is_shown_with_its_hash(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "config.json").write_text("{}")
    first = find_model(str(adapter), tmp_path)
    assert first.adapter == adapter
    assert first.version.startswith(f"{adapter}, ")
    (adapter / "config.json").write_text('{"other": 1}')
    assert find_model(str(adapter), tmp_path).version != first.version


def test_a_missing_adapter_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing"):
        find_model(str(tmp_path), tmp_path)


def test_an_alias_is_shown_as_its_version(mlflow_checkout: Path, tmp_path: Path) -> None:
    import mlflow

    from pipelines.registry.tracking import connect

    connect(mlflow_checkout)
    for text in ("{}", '{"second": 1}'):
        register(tmp_path, text)
    mlflow.MlflowClient().set_registered_model_alias("dynamicid", "champion", "2")
    shown = find_model("models:/dynamicid@champion", mlflow_checkout)
    assert shown.version == "dynamicid, version 2 (champion)"
    assert (shown.adapter / "config.json").read_text() == '{"second": 1}'
    assert find_model("models:/dynamicid/1", mlflow_checkout).version == "dynamicid, version 1"
    with pytest.raises(UserError, match="no such version in the registry; there are v1, v2"):
        find_model("models:/dynamicid/7", mlflow_checkout)
