"""A run shown in Prefect: as a flow, or through the local service's mirror."""
