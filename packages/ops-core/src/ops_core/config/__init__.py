"""Configuration of a deployment: ``opspawn.toml`` and import paths become a catalog of agents."""
