"""Who may ask the service, and for what."""
