"""Budgets: limits of a run, prices of models, reservations of calls, and the account that runs share."""
