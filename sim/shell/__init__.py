"""The shell: the only package that knows simulated time; SimPy is in ``clock``."""
