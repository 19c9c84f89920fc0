"""Checks of ``opspawn doctor``."""
