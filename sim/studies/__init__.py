"""Many runs at once: sweeps, capacity searches, optimisation."""
