"""The models that agents run on: `kgents:echo`, and providers by configuration."""
