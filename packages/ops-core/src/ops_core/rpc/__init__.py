"""The gRPC surface: the services of ``proto/opspawn/v1``. Needs the extra ``opspawn[grpc]``."""
