"""What goes wrong in a tool: told to the model, which can try something else, and never an error of the run."""

from __future__ import annotations


class ToolError(Exception):
    """A tool call that did not work. Its text is for the model: what failed and what to do instead."""
