"""The messages and services of opspawn.v1: made by `make proto`."""
