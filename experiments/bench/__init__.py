"""resetta bench: one module per benchmark, each `run(configs)`; its settings lie in configs/bench."""
