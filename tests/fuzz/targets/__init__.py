"""One module for each parser of ours that reads a caller's bytes.

`SEEDS` are inputs to begin with; `check(data)` hands an input to the parser and raises when the parser does anything
but answer rightly or refuse as it documents.
"""
