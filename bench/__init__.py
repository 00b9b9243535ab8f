"""The benchmarks of kgents: `python -m bench NAME...` runs some, `make bench` all and writes docs/benchmarks.md."""
