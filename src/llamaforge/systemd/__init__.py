"""How a service talks to systemd: readiness and watchdog (`notify`), the journal (`journal`).

Both are one datagram to a socket, described in sd_notify(3) and in systemd's "Native Journal
Protocol". The bindings that exist need a compiler and systemd's headers on every node.
"""
