"""A team's servers on one machine: PostgreSQL, Airflow and MLflow, configured by the files that containers use, too."""
