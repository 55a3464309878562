"""The GPU micro-benchmark behind ``servescope calibrate profile``."""
