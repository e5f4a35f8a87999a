"""How connections are opened: names, addresses, proxies, TLS, and when one is used again."""
