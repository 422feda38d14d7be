# Airflow without torch and Spark, for the API server and the DAG processor, which run no task. Build from the root:
#   docker build -f docker/airflow.Dockerfile -t dynamicid-airflow .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 50000 dynamicid && useradd --create-home --uid 50000 --gid dynamicid dynamicid \
    && install -d -o dynamicid -g dynamicid /opt/airflow /opt/airflow/logs /opt/dynamicid /opt/runs
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt \
    apache-airflow==3.3.2 apache-airflow-providers-apprise apache-airflow-providers-standard asyncpg psycopg2-binary pyyaml
ARG EXECUTOR=local
RUN if [ "$EXECUTOR" = celery ]; then pip install --no-cache-dir -c /tmp/constraints.txt \
    apache-airflow-providers-celery==3.26.0 redis==8.1.0; fi
USER 50000:50000
WORKDIR /opt/dynamicid
# What DAG files read: the DAGs, the stages of dvc.yaml, the names of profiles and pools.
COPY --chown=50000:50000 dags dags
COPY --chown=50000:50000 profiles profiles
COPY --chown=50000:50000 dvc.yaml dvc.yaml
COPY --chown=50000:50000 docker/pools.json docker/pools.json
ENV AIRFLOW_HOME=/opt/airflow PYTHONPATH=/opt/dynamicid/dags
ENTRYPOINT ["tini", "--"]
CMD ["airflow", "version"]
