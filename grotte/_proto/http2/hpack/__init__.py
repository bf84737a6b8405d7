"""Header compression (RFC 7541): a complete decoder, and an encoder that keeps no state between requests."""
