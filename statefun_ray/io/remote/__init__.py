"""Functions that live elsewhere: their wire format, the HTTP clients, and what is known of each service."""
