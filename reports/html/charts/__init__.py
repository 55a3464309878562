"""Charts of the page, as Bokeh figures; each file draws one kind from result files."""
