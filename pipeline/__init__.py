"""What a run is: configuration, the DAG, the runners and the commands."""
