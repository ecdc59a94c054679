"""The command line and what a run needs: run directory, checkpoints, logging, media, reports, benchmarks."""
