"""Where times, sizes and power come from: profiled kernels, catalogues, engines."""
