"""The machine as resources: streams of kernels, HBM and links shared max-min fairly.

Pure: no SimPy, no files. ``max_min`` and ``fluid`` are exact; ``streams`` runs a DAG of
kernels on them; ``pricer`` turns a plan into that DAG; ``topology`` and ``collectives``
are links between GPUs and what collectives send over them.
"""
