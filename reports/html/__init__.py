"""The HTML report: one offline page from the files of runs and comparisons."""
