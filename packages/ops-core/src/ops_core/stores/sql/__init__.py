"""SQL statements, each written once. Each function is one verb inside a transaction that the caller has begun.

A verb raises an :class:`~ops_core.errors.OpsError` only before it has written anything, so that several can share a
transaction and fail alone. One that is carried out for many callers at once answers each of them, with what it would
have returned or with the error that it would have raised.

    look      tasks and steps as they are
    submit    new tasks
    progress  steps and ends, written by workers
    leases    claims, and what becomes of them
    threads   conversations: whose turn it is
    notes     what agents remember
    decide    what people decide about a task that exists
    upkeep    what nobody asks for: lost workers, deadlines, old tasks
    stats     how full the store is
"""
