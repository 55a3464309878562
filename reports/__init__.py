"""What is concluded from result files: tables, figures and frontiers."""
