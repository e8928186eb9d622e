"""Clients that no standard program can stand in for."""
