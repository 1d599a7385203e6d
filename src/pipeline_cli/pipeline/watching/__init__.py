"""How the pipeline is, and whether it is wired right."""
