"""The web console: a page over the admin API, and the bridge from its HTTP to gRPC."""
