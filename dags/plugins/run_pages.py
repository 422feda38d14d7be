"""A plugin of Airflow's API server: the reports and Data Docs of workspaces, for whoever may see the DAG."""

from __future__ import annotations

import os
import re
from pathlib import Path

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse

# A page gets an origin of its own: a script in it can call nothing of Airflow, whatever a photo or a label brought in.
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_READABLE = DagAccessEntity.TASK_INSTANCE
app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)


def _file(dag_id: str, run: str, folder: str, page: str) -> Path:
    """Return a file below `folder` in the workspace of a run of the DAG; raise 404 where there is none."""
    home = Path(os.environ.get("DYNAMICID_HOME", Path(__file__).resolve().parents[2]))
    runs = Path(os.environ.get("DYNAMICID_RUNS") or home / ".dynamicid" / "runs").resolve()
    # The name of a workspace begins with the DAG's (pipelines/versions/workspace.py).
    own = run.startswith(re.sub(r"[^A-Za-z0-9]+", "-", dag_id).strip("-").lower() + "-")
    file = (runs / run / folder / page).resolve()
    if not own or not file.is_relative_to(runs / run / folder) or not file.is_file():
        raise HTTPException(404, "no such page; `dynamicid clean` removes workspaces of runs that ended")
    return file


@app.get("/{dag_id}/{run}/reports/data_docs/{stage}/static/{page:path}")
def static(dag_id: str, run: str, stage: str, page: str) -> FileResponse:
    """Return styles, scripts and fonts of Great Expectations: from that origin, browsers ask without the login."""
    found = _file(dag_id, run, f"reports/data_docs/{stage}/static", page)
    return FileResponse(found, headers={**_HEADERS, "Access-Control-Allow-Origin": "*"})


@app.get("/{dag_id}/{run}/reports/{page:path}", dependencies=[Depends(requires_access_dag("GET", _READABLE))])
def report(dag_id: str, run: str, page: str) -> FileResponse:
    """Return a page that a task wrote."""
    return FileResponse(_file(dag_id, run, "reports", page), headers=_HEADERS)


class RunPagesPlugin(AirflowPlugin):
    """Registers the pages with the API server."""

    name = "run_pages"
    fastapi_apps = [{"app": app, "url_prefix": "/dynamicid/pages", "name": "reports and Data Docs"}]  # noqa: RUF012
