"""The simulator: a pure core, its SimPy shell, results and the command line."""
