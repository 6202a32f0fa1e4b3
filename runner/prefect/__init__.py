"""Where a run is shown: in Prefect, in a flow run of its own or in the current one, or nowhere."""
