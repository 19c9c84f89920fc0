"""Resilience of model calls: retries, fallback, circuit breaker, rate limiter, shared provider state."""
