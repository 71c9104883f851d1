"""Leads one job: asks for nodes, orders generations, watches them, and decides how it goes on."""
