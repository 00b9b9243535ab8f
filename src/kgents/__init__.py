"""kgents serves AI agents to many tenants and meters every token and run."""

__version__ = "0.1.0"
