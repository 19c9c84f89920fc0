"""Child processes of a sandbox, seen from the worker: fork server, process, call, program, network and output."""
