"""The replay laboratory: what else could have happened around an incident, and under which policy it could not."""
