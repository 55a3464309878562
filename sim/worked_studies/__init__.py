"""Three worked studies; each is a script, ``python -m sim.worked_studies.NAME``."""
