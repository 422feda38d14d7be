"""The servers of a team on one machine: PostgreSQL, Airflow and MLflow from the files that the containers read, too."""
