"""The stages of a run, each `run(cfg, inputs, out) -> out`: it reads complete artifacts and writes one."""
