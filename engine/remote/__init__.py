"""Paddock's own pool across a socket: the door on its side, the pool on the other."""
