"""How tokens choose experts: statistics, generators, importers, expected coverage."""
