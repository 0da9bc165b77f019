"""Who may call a gRPC server of ours."""
