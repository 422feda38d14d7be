# The MLflow server with accounts, PostgreSQL and an S3 client. Build from the root:
#   docker build -f docker/mlflow.Dockerfile -t dynamicid-mlflow .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 50000 mlflow && useradd --create-home --uid 50000 --gid mlflow mlflow
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt mlflow==3.17.2 flask-wtf psycopg2-binary "boto3>=1.40,<2"
USER 50000:50000
WORKDIR /home/mlflow
COPY mlflow/basic_auth.ini /etc/mlflow/basic_auth.ini
ENTRYPOINT ["tini", "--"]
CMD ["mlflow", "server", "--app-name", "basic-auth"]
