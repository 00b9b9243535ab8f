"""The rules of the design that a program can check, each with a planted violation that it must catch."""
