"""Whether an installation is ready: criteria, each with a check that is run, what it saw, and a ledger of it all.

What could not be checked is `unknown`, and `unknown` is not a pass.
"""
