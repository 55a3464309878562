"""The SimPy shell: the only package that knows simulated time."""
