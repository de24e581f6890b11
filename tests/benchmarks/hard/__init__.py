"""What a hostile client and a careless operator do, against a real server; counted."""
