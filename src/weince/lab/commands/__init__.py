"""The commands: a module each, with `run(words)`; `weince.lab.cli` names them."""
