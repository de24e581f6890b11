"""Who is told of events outside of the service: webhooks and an Alertmanager."""
