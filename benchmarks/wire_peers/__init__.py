"""One module for each library that is compared: ``model(base)``, ``build(model)``, ``run(agent)``, ``stream(…)``."""
