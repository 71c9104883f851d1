"""Who is who in a fleet: its authority, certificates, and the TLS contexts made of them."""
